/** Lists the contents of a bundle as a CycloneDX document: https://cyclonedx.org/docs/1.6/json */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Metafile } from "esbuild";
import { LLHTTP_VERSION } from "../guard/http/llhttp_wasm.ts";

interface Package {
  readonly name: string;
  readonly version: string;
  readonly license?: string;
}

/** One entry of `components`; `purl` is the package URL that vulnerability scanners look up. */
function componentOf(type: "application" | "library", { name, version, license }: Package) {
  return {
    type,
    name,
    version,
    purl: `pkg:npm/${name.replace("@", "%40")}@${version}`,
    ...(license !== undefined && { licenses: [{ expression: license }] }),
  };
}

/** Returns the folders of the packages in a bundle, each once, sorted. */
function packageFoldersOf({ inputs }: Metafile): readonly string[] {
  const folders = Object.keys(inputs)
    .map((path) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0])
    .filter((folder) => folder !== undefined);
  return [...new Set(folders)].sort();
}

/**
 * Builds the software bill of materials of a bundle that esbuild made.
 *
 * @param root The checkout; the metafile's paths are relative to it.
 * @throws {Error} If a package of the bundle has no readable `package.json`.
 */
export function sbomOf(root: string, metafile: Metafile): string {
  const read = (folder: string): Package =>
    JSON.parse(readFileSync(join(root, folder, "package.json"), "utf8"));
  const document = {
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: { component: componentOf("application", read(".")) },
    components: [
      ...packageFoldersOf(metafile).map((folder) => componentOf("library", read(folder))),
      // The source of ucred contains llhttp, in the build that undici ships.
      {
        ...componentOf("library", { name: "llhttp", version: LLHTTP_VERSION, license: "MIT" }),
        purl: `pkg:github/nodejs/llhttp@v${LLHTTP_VERSION}`,
      },
    ],
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}
