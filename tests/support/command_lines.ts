/** Runs the command lines that arrive on stdin, each as JSON, and answers with exit code and output. */

import process from "node:process";
import { createInterface } from "node:readline";
import { run } from "../../cli/program.ts";

const answer = process.stdout.write.bind(process.stdout);
const ran = { code: 0, out: "", err: "" };
process.stdout.write = (text) => Boolean(ran.out += text);
process.stderr.write = (text) => Boolean(ran.err += text);
// Each run adds its listeners, as it does in a process of its own.
process.stdout.setMaxListeners(0);
process.stderr.setMaxListeners(0);

for await (const line of createInterface({ input: process.stdin })) {
  Object.assign(ran, { code: 0, out: "", err: "" });
  ran.code = await run(JSON.parse(line));
  answer(`${JSON.stringify(ran)}\n`);
}
