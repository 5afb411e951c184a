/** The packages that only some tests need. `npm test` installs them in folders of their own. */

import { existsSync } from "node:fs";
import type { Need } from "./suite.ts";

/** The packages of a folder that has a package.json of its own. */
export function packagesOf(folder: string): Need {
  const complete = new URL(`../../${folder}/node_modules/.package-lock.json`, import.meta.url);
  return { name: `node tools/install.ts ${folder}`, met: existsSync(complete) };
}
