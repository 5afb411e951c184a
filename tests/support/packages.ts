/** The packages that only some tests need. `npm test` installs them in separate folders. */

import { existsSync } from "node:fs";
import type { Need } from "./suite.ts";

/** The need for the packages of a folder with its own package.json. */
export function packagesOf(folder: string): Need {
  const complete = new URL(`../../${folder}/node_modules/.package-lock.json`, import.meta.url);
  return { name: `node tools/install.ts ${folder}`, met: existsSync(complete) };
}
