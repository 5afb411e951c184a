/** Names and examples of all commands, for help, man page and completions. */

import type { Command } from "commander";

/** Examples by command. Help and man page show them below the options. */
const EXAMPLES: {
  readonly [command: string]: readonly (readonly [command: string, about: string])[];
} = {
  ucred: [
    ["ucred doctor", "test the features of this system"],
    ["ucred inspect /run/docker.sock", "show its server, and the users that may connect"],
  ],
  inspect: [
    ["sudo ucred inspect /run/docker.sock", "as root, also show the clients of other users"],
    ["ucred inspect --json @name", "inspect an abstract socket and print JSON"],
  ],
  sockets: [
    ["sudo ucred sockets", "as root, also show the servers of other users"],
    ["ucred sockets --json", "print JSON"],
    ["sudo ucred sockets --watch", "see which sockets a program makes"],
  ],
  listen: [
    ["ucred listen /tmp/try.sock", "connect from another terminal: nc -U /tmp/try.sock"],
    ["ucred listen /tmp/try.sock --policy policy.yaml", "also show the policy's decision"],
  ],
  guard: [
    [
      "ucred guard --listen /run/safe.sock --upstream /run/app.sock --policy policy.yaml",
      "decide each connection, then forward bytes",
    ],
    [
      "ucred guard --mode http --listen /run/safe.sock --socket-mode 0666 \\\n" +
      "    --upstream /run/app.sock --policy app.yaml --audit /var/log/app-guard.log",
      "decide each request by METHOD /path",
    ],
    [
      "ucred guard --mode docker --listen /run/ucred/docker.sock --socket-mode 0666 \\\n" +
      "    --upstream /run/docker.sock --policy docker.yaml",
      "decide each request to a Docker engine by action and attributes",
    ],
    [
      "ucred guard --mode dbus --listen /run/ucred/bus.sock --socket-mode 0666 \\\n" +
      "    --upstream /run/app/bus.sock --policy bus.yaml",
      "decide each message to and from a D-Bus bus",
    ],
    [
      "ucred guard --mode mcp --listen /run/ucred/files.sock --socket-mode 0666 \\\n" +
      "    --upstream /run/mcp/files.sock --policy mcp.yaml",
      "decide each request to an MCP server",
    ],
  ],
  "mcp-bridge": [
    [
      "ucred mcp-bridge --socket /run/mcp/files.sock",
      "use a server with messages on lines, such as a guard with --mode mcp",
    ],
    [
      "ucred mcp-bridge --socket /run/mcp/notes.sock --http --server-user notes",
      "use a server with Streamable HTTP, which runs as the user notes",
    ],
  ],
  run: [[
    "ucred run --socket /run/ucred/helper.sock -- /usr/bin/systemctl restart app",
    "run a command as root, if the helper's policy allows it",
  ]],
  policy: [
    ["ucred policy check policy.yaml", "check that a server can use it"],
    ["ucred policy explain policy.yaml --user ada", "explain the decision about a user"],
  ],
  "policy check": [["ucred policy check /etc/app/*.yaml", "check that a server can use them"]],
  "policy lint": [[
    "ucred policy lint policy.yaml",
    "find rules that never decide, or that allow every peer",
  ]],
  "policy test": [
    ["ucred policy test policy.yaml", "run the tests in the file"],
    ["ucred policy test --watch policy.yaml", "run them again each time you save the file"],
  ],
  "policy explain": [
    [
      "ucred policy explain policy.yaml --user ada --group docker --action 'GET /info'",
      "explain the decision about a request",
    ],
    ["ucred policy explain policy.yaml --pid 4711", "explain the decision about a running process"],
    [
      "ucred policy explain docker.yaml --request /var/log/docker-guard.log:17",
      "explain a record of an audit log",
    ],
  ],
  "policy who": [[
    "ucred policy who policy.yaml --action 'POST /containers/create'",
    "list the users and groups that may do it",
  ]],
  "policy diff": [
    ["ucred policy diff policy.yaml policy.new.yaml", "show a decision that the edit changes"],
    [
      "git show main:policy.yaml | ucred policy diff --only-narrower - policy.yaml",
      "in CI: fail if the edit allows more",
    ],
  ],
  "policy fmt": [
    ["ucred policy fmt policy.yaml", "format the file"],
    ["ucred policy fmt --check *.yaml", "in CI: fail if a file is not formatted"],
  ],
  "policy suggest": [[
    "ucred policy suggest learned.jsonl > policy.yaml",
    "write a rule for each user, from the file of ucred guard --learn",
  ], [
    "ucred policy suggest learned.jsonl --by unit",
    "write a rule for each service",
  ]],
  "policy import": [[
    "ucred policy import sudoers /etc/sudoers > sudo.yaml",
    "convert sudoers files to a policy",
  ], [
    "ucred policy import polkit-rules \\\n" +
    "    /etc/polkit-1/rules.d/*.rules /usr/share/polkit-1/rules.d/*.rules > polkit.yaml",
    "convert rules of polkit to a policy",
  ], [
    "ucred policy import dbus /usr/share/dbus-1/system.conf > bus.yaml",
    "convert the policy of a message bus",
  ]],
  polkit: [["ucred polkit actions", "list the actions of this system"]],
  "polkit actions": [
    ["ucred polkit actions", "list the actions, and who may do them without a rule"],
    ["ucred polkit actions org.example.policy", "check a file"],
  ],
  "polkit new": [[
    "ucred polkit new org.example.restart --description 'Restart the example' \\\n" +
    "    --message 'Authentication is required to restart the example' > org.example.policy",
    "write a file, to install in /usr/share/polkit-1/actions",
  ]],
  doctor: [["ucred doctor --json", "print JSON"]],
  man: [["ucred man > ucred.1 && man ./ucred.1", "read the manual page"]],
  completions: [
    ["source <(ucred completions bash)", "put this line into ~/.bashrc"],
    ["source <(ucred completions zsh)", "put this line into ~/.zshrc, after compinit"],
    ["ucred completions fish | source", "put this line into ~/.config/fish/config.fish"],
  ],
};

/** A command and all its subcommands. */
export function everyCommand(command: Command): readonly Command[] {
  return [command, ...command.commands.flatMap(everyCommand)];
}

/** The name of a command without the program's: "policy check". */
export function nameOf(command: Command): string {
  const { parent } = command;
  return parent?.parent ? `${nameOf(parent)} ${command.name()}` : command.name();
}

/** A command's examples. */
export function examplesOf(command: Command) {
  return EXAMPLES[nameOf(command)] ?? [];
}
