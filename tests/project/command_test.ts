/** Help, manual page and completions match the command's code. */

import type { Command } from "commander";
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { everyCommand, examplesOf, nameOf } from "../../cli/commands.ts";
import { manual } from "../../cli/man.ts";
import { programFor } from "../../cli/program.ts";
import { VERSION } from "../../cli/version.ts";
import { temporaryFolder } from "../support/compile.ts";
import { testWith } from "../support/suite.ts";

const program = programFor(() => {});
const commands = everyCommand(program);
/** The commands without subcommands. */
const doing = commands.filter((command) => command.commands.length === 0);

/** A folder that contains `ucred`, for the front of PATH. */
const bin = temporaryFolder();
const main = fileURLToPath(new URL("../../cli/main.ts", import.meta.url));
writeFileSync(join(bin, "ucred"), `#!/bin/sh\nexec "${process.execPath}" "${main}" "$@"\n`);
chmodSync(join(bin, "ucred"), 0o755);
const env = { ...process.env, PATH: `${bin}:${process.env["PATH"]}`, TERM: "xterm" };

function need(name: string, ...args: string[]) {
  try {
    execFileSync(name, args, { stdio: "ignore" });
    return { name, met: true };
  } catch {
    return { name, met: false };
  }
}

const run = (command: string, args: readonly string[], more = {}) =>
  execFileSync(command, args, { encoding: "utf8", env: { ...env, ...more } });

const longs = (command: Command) =>
  command.createHelp().visibleOptions(command).map(({ long }) => long!);

test("the program has the version of package.json", () => {
  assert.equal(program.version(), VERSION);
});

test("--help of each command lists its arguments, options and examples", () => {
  for (const command of commands) {
    let help = "";
    command.configureOutput({ writeOut: (text) => help += text });
    command.outputHelp();
    for (const { flags } of command.options) assert.ok(help.includes(`  ${flags} `), flags);
    for (const argument of command.registeredArguments) {
      assert.ok(help.includes(`  ${argument.name()} `), argument.name());
      assert.notEqual(argument.description, "", `${nameOf(command)} ${argument.name()}`);
    }
    const examples = examplesOf(command);
    assert.ok(examples.length > 0, `${nameOf(command)} has an example`);
    for (const [example, about] of examples) {
      assert.ok(help.includes(example) && help.includes(about));
    }
    assert.ok(help.split("\n").every((line) => line.length <= 100), help);
  }
});

/** The words of an example after "ucred", as a shell splits them. */
function wordsOf(example: string): readonly string[] {
  const [, line] = /\bucred ((?:[^>|&)]|'[^']*')*)/.exec(example) ?? [];
  assert.ok(line !== undefined, example);
  return run("bash", ["-c", `printf '%s\\0' ${line}`]).split("\0").slice(0, -1);
}

test("each example in --help parses and belongs to its command", async () => {
  for (const command of commands) {
    for (const [example] of examplesOf(command)) {
      const fresh = programFor(() => {});
      let called: string | undefined;
      for (const each of everyCommand(fresh)) {
        each.exitOverride().action(() => void (called = nameOf(each)));
      }
      await fresh.parseAsync(wordsOf(example), { from: "user" });
      const [name = "", isOf] = [called, command.commands.length > 0];
      assert.ok(isOf ? name !== "" : name === nameOf(command), `${example}: ${name}`);
    }
  }
});

test("the manual page lists each command, argument, option and example", () => {
  const page = manual(program).replaceAll("\\-", "-").replaceAll("\\e", "\\");
  for (const command of doing) {
    assert.ok(page.includes(`\n.SS ${nameOf(command)} `), nameOf(command));
    for (const { flags, description } of command.options) {
      assert.ok(page.includes(`\n.B ${flags}\n`), flags);
      assert.ok(page.includes(description.slice(1)), description);
    }
    for (const [example] of examplesOf(command)) {
      assert.ok(page.includes(`\n${example}\n`), example);
    }
  }
  for (const flags of ["-V, --version", "-h, --help"]) assert.ok(page.includes(`\n.B ${flags}\n`));
});

testWith(
  [need("man", "--version"), need("groff", "--version")],
  "man(1) shows the manual page without a warning",
  () => {
    const file = join(bin, "ucred.1");
    writeFileSync(file, `${manual(program)}\n`);
    const shown = execFileSync("bash", ["-c", `man --warnings -P cat -l '${file}' 2>&1`], {
      encoding: "utf8",
      env: { ...env, MANWIDTH: "80", LC_ALL: "C.UTF-8", MAN_KEEP_FORMATTING: "" },
    });
    assert.doesNotMatch(shown, /warning:|<standard input>/);
    for (const title of ["NAME", "SYNOPSIS", "COMMANDS", "EXIT STATUS", "ENVIRONMENT", "SIGNALS"]) {
      assert.match(shown, new RegExp(`^${title}$`, "m"));
    }
    for (const command of doing) {
      for (const long of longs(command)) assert.ok(shown.includes(long), long);
    }
  },
);

/** Typed words → completions that must be offered. */
const TYPED: readonly (readonly [words: readonly string[], offered: readonly string[]])[] = [
  [[""], program.commands.map((command) => command.name())],
  [["policy", ""], ["check", "lint", "test", "explain", "who", "diff"]],
  [["policy", "e"], ["explain"]],
  [["guard", "--mode", ""], ["stream", "http", "docker", "dbus", "mcp"]],
  [["policy", "explain", "--user", "roo"], ["root"]],
  [["policy", "explain", "--pid", "1"], ["1"]],
  [["completions", ""], ["bash", "zsh", "fish"]],
  [["help", "ins"], ["inspect"]],
  [["policy", "help", ""], ["check", "lint", "test", "explain", "who", "diff"]],
  [["help", "policy", ""], ["check", "lint", "test", "explain", "who", "diff"]],
  ...doing.map((command) => [[...nameOf(command).split(" "), "--"], longs(command)] as const),
];

testWith(
  [need("bash", "--version")],
  "bash completes commands, options, their values, and files",
  () => {
    const script = `source <(ucred completions bash); source <(ucred completions bash)
    offer() { COMP_WORDS=(ucred "$@"); COMP_CWORD=$#; COMPREPLY=(); _ucred; echo "\${COMPREPLY[*]}"; }
    ${TYPED.map(([words]) => `offer ${words.map((word) => `'${word}'`).join(" ")}`).join("\n")}
    offer guard --mode = h
    offer inspect /
    complete -p ucred`;
    const lines = run("bash", ["--norc", "-c", script]).trimEnd().split("\n");
    for (const [at, [words, offered]] of TYPED.entries()) {
      const found = lines[at]!.split(" ");
      for (const word of offered) {
        assert.ok(
          found.includes(word),
          `${words.join(" ")}: ${lines[at]}`,
        );
      }
      const flags = found.filter((word) => word.startsWith("--"));
      assert.ok(flags.every((flag) => offered.includes(flag)), lines[at]!);
    }
    // Without completions, bash offers files.
    assert.deepEqual(lines.slice(-3, -1), ["http", ""]);
    assert.match(lines.at(-1)!, /-o default .*-F _ucred ucred/);
  },
);

/** Requires that a shell has offered all words that the table requires, and no other option. */
function requireOffers(found: readonly string[], [words, offered]: typeof TYPED[number]): void {
  for (const word of offered) {
    assert.ok(found.includes(word), `${words.join(" ")}: no ${word} in ${found.join(" ")}`);
  }
  const flags = found.filter((word) => word.startsWith("--"));
  assert.ok(flags.every((flag) => offered.includes(flag)), flags.join(" "));
}

testWith(
  [need("fish", "--version")],
  "fish completes commands, options, their values, and files",
  () => {
    const lines = [...TYPED.map(([words]) => words), ["guard", "--mode=h"], ["inspect", "/et"]];
    const script = `ucred completions fish | source
      ${lines.map((words) => `complete -C 'ucred ${words.join(" ")}'; echo ""`).join("\n")}`;
    const blocks = run("fish", ["--no-config", "-c", script]).split("\n\n");
    const offers = lines.map((_, at) =>
      (blocks[at] ?? "").split("\n").map((line) => line.split("\t")[0]!)
    );
    for (const [at, row] of TYPED.entries()) requireOffers(offers[at]!, row);
    assert.deepEqual(offers.slice(-2), [["--mode=http"], ["/etc/"]]);
  },
);

testWith(
  [need("zsh", "-f", "-c", "zmodload zsh/zpty")],
  "zsh completes commands, options, their values, and files",
  () => {
    const folder = temporaryFolder();
    const [hits, keys] = [join(folder, "hits"), join(folder, "keys")];
    const lines = [...TYPED.map(([words]) => words), ["guard", "--mode=h"], ["inspect", "/et"]];
    writeFileSync(keys, lines.map((words) => `ucred ${words.join(" ")}\n`).join(""));
    writeFileSync(hits, "");
    // In an interactive zsh on a terminal of its own: each line, then Tab, then Ctrl-G, which marks its end.
    const script = `zmodload zsh/zpty
      zpty shell zsh -f -i
      zpty -w shell 'PROMPT= RPROMPT= LISTMAX=1000; autoload -U compinit; compinit -u -D; source <(ucred completions zsh)
        compadd() { local -a all; builtin compadd -A all "$@"; print -rl -- $all >> ${hits}; builtin compadd "$@" }
        mark() { print "%" >> ${hits}; BUFFER= }; zle -N mark; bindkey "^G" mark; print REA""DY'
      zpty -m -r shell output '*READY*'
      integer lines
      while IFS= read -r line; do
        zpty -w -n shell "$line"$'\\t\\a'
        (( lines += 1 ))
        until (( $(grep -c '^%$' ${hits}) == lines )); do
          zpty -r -t shell output
          (( SECONDS < 200 )) || exit 1
        done
      done < ${keys}
      zpty -d shell`;
    run("zsh", ["-f", "-c", script]);
    const offers = readFileSync(hits, "utf8").split("%\n").map((block) =>
      block.split("\n").map((word) => word.replace(/=$/, ""))
    );
    for (const [at, row] of TYPED.entries()) requireOffers(offers[at]!, row);
    assert.ok(offers[TYPED.length]!.includes("http"));
    assert.ok(offers[TYPED.length + 1]!.includes("etc"));
  },
);
