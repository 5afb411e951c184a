/** The cases of a target: the files of its corpus, and changed ones. */

import { Buffer } from "node:buffer";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "../support/properties.ts";
import type { Target } from "./targets.ts";

/** The folder of a target's corpus. */
export function corpusFolder(name: string): string {
  return fileURLToPath(new URL(`corpus/${name}`, import.meta.url));
}

/** A file of a corpus. */
export interface CorpusFile {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** Reads the corpus of a target. */
export function corpusOf({ name }: Target): readonly CorpusFile[] {
  const folder = corpusFolder(name);
  return readdirSync(folder).sort().map((file) => ({
    name: file,
    bytes: new Uint8Array(readFileSync(join(folder, file))),
  }));
}

/** Bytes that are inserted: a word of the target, a boundary value, any bytes, or a part of a file. */
function insertion(target: Target, files: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> {
  const words = target.words.flatMap((word) => [Buffer.from(word), Buffer.from(word, "latin1")]);
  const part = fc.tuple(fc.constantFrom(...files), fc.nat(), fc.nat(64)).map(
    ([file, at, length]) => {
      const start = at % (file.length + 1);
      return file.subarray(start, start + length);
    },
  );
  return fc.oneof(
    { weight: 4, arbitrary: fc.constantFrom(...words) },
    { weight: 2, arbitrary: fc.uint8Array({ maxLength: 4 }) },
    { weight: 2, arbitrary: part },
    { weight: 1, arbitrary: fc.tuple(fc.constantFrom(...words), fc.nat(300)).map(repeated) },
  );
}

const repeated = ([word, times]: readonly [Uint8Array, number]) =>
  Buffer.concat(Array<Uint8Array>(times).fill(word));

/** Files of the corpus with a few changes, and any bytes. */
export function changedCases(
  target: Target,
  files: readonly Uint8Array[],
): fc.Arbitrary<Uint8Array> {
  const edit = fc.record({
    at: fc.nat(),
    cut: fc.oneof({ weight: 9, arbitrary: fc.nat(6) }, fc.nat(1000)),
    add: insertion(target, files),
  });
  const changed = fc.tuple(
    fc.constantFrom(...files),
    fc.array(edit, { minLength: 1, maxLength: 5 }),
  )
    .map(([file, edits]) =>
      edits.reduce<Uint8Array>((bytes, { at, cut, add }) => {
        const start = at % (bytes.length + 1);
        return Buffer.concat([bytes.subarray(0, start), add, bytes.subarray(start + cut)]);
      }, file)
    );
  return fc.oneof({ weight: 19, arbitrary: changed }, fc.uint8Array({ maxLength: 200 }));
}
