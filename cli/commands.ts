/** The tree of subcommands: their names and examples, for help, man page and completions. */

import type { Command } from "commander";

/** Shown below each command's options, in help and man page. */
const EXAMPLES: {
  readonly [command: string]: readonly (readonly [command: string, about: string])[];
} = {
  ucred: [
    ["ucred doctor", "what can be done here"],
    ["ucred inspect /run/docker.sock", "who serves it, and who may connect"],
  ],
  inspect: [
    ["sudo ucred inspect /run/docker.sock", "as root: also who is connected"],
    ["ucred inspect --json @name", "an abstract name, for programs"],
  ],
  listen: [
    ["ucred listen /tmp/try.sock", "then, in another terminal: nc -U /tmp/try.sock"],
    ["ucred listen /tmp/try.sock --policy policy.yaml", "also what would be decided, and why"],
  ],
  guard: [
    [
      "ucred guard --listen /run/safe.sock --upstream /run/app.sock --policy policy.yaml",
      "decides at connect, then passes bytes",
    ],
    [
      "ucred guard --mode http --listen /run/safe.sock --socket-mode 0666 \\\n" +
      "    --upstream /run/docker.sock --policy docker.yaml --audit /var/log/docker-guard.log",
      "decides each request by METHOD /path",
    ],
  ],
  policy: [
    ["ucred policy check policy.yaml", "can a server use it?"],
    ["ucred policy explain policy.yaml --user ada", "may she, and why?"],
  ],
  "policy check": [["ucred policy check /etc/app/*.yaml", "can a server use them?"]],
  "policy lint": [[
    "ucred policy lint policy.yaml",
    "rules that never decide, that let everybody in",
  ]],
  "policy test": [["ucred policy test policy.yaml", "the tests that stand in the file"]],
  "policy explain": [
    [
      "ucred policy explain policy.yaml --user ada --group docker --action 'GET /info'",
      "may she, and why?",
    ],
    ["ucred policy explain policy.yaml --pid 4711", "a process that runs"],
  ],
  "policy who": [[
    "ucred policy who policy.yaml --action 'POST /containers/create'",
    "users and groups",
  ]],
  "policy diff": [[
    "ucred policy diff policy.yaml policy.new.yaml",
    "does an edit change anything?",
  ]],
  doctor: [["ucred doctor --json", "for programs"]],
  man: [["ucred man > ucred.1 && man ./ucred.1", "read it"]],
  completions: [
    ["source <(ucred completions bash)", "in ~/.bashrc; the same in ~/.zshrc, with zsh"],
    ["ucred completions fish > ~/.config/fish/completions/ucred.fish", "for fish"],
  ],
};

/** A command and all below it. */
export function everyCommand(command: Command): readonly Command[] {
  return [command, ...command.commands.flatMap(everyCommand)];
}

/** "policy check": how EXAMPLES names a command. */
export function nameOf(command: Command): string {
  const { parent } = command;
  return parent?.parent ? `${nameOf(parent)} ${command.name()}` : command.name();
}

/** A command's examples. */
export function examplesOf(command: Command) {
  return EXAMPLES[nameOf(command)] ?? [];
}
