/**
 * A guard that connects as its clients, in a process that creates files at the same time. Prints the owners
 * of the files at the end of input.
 */

import { mkdir, stat, writeFile } from "node:fs/promises";
import process from "node:process";
import { parsePolicy } from "../../policy/mod.ts";
import { createGuard } from "../../guard/mod.ts";

const [listen, upstream, folder] = process.argv.slice(2) as [string, string, string];
const policy = parsePolicy("version: 1\nrules: [{ name: all, allow: true }]\n");
const guard = createGuard({ mode: "stream", upstream, policy, asPeer: true });
let isOver = false;
process.stdin.resume().once("end", () => isOver = true);
guard.listen({ path: listen, mode: 0o666 }, async () => {
  console.log("listening");
  const owners = new Set<string>();
  let count = 0;
  await mkdir(folder);
  while (!isOver) {
    await Promise.all(Array.from({ length: 8 }, async () => {
      const path = `${folder}/${count++}`;
      await writeFile(path, "x");
      const { uid, gid } = await stat(path);
      owners.add(`${uid}:${gid}`);
    }));
  }
  console.log(JSON.stringify({ count, owners: [...owners] }));
  process.exit();
});
