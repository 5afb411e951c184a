/** The manual page, in roff: man(7). */

import type { Command, Option } from "commander";
import { everyCommand, examplesOf, nameOf } from "./commands.ts";

const EXIT_CODES = [
  ["0", "Success."],
  ["1", "Findings, or a negative result: a denied peer, a failed test."],
  ["2", "The command failed: a wrong option, an unreadable file, no permission."],
  [
    "others",
    "Of run alone: the exit status of the command, or 128 plus the number of the signal that ended it.",
  ],
] as const;

const ENVIRONMENT = [
  ["NO_COLOR", "Disables colours if it is set and not empty. TERM=dumb does the same."],
  ["FORCE_COLOR", "Enables colours without a terminal if it is set and neither empty nor 0."],
  [
    "NOTIFY_SOCKET",
    "The socket on which guard reports to the service manager that it is ready or stopping.",
  ],
  ["LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES", "The sockets for --systemd."],
] as const;

const SIGNALS = [
  [
    "SIGTERM, SIGINT",
    "guard stops accepting, and ends after at most --drain seconds; listen and --watch end. A second signal ends it at once.",
  ],
  ["SIGHUP", "guard and listen reload the policy, and guard reopens its audit log."],
] as const;

/** The whole page. */
export function manual(program: Command): string {
  const commands = everyCommand(program).filter((command) =>
    command !== program && command.commands.length === 0
  );
  return [
    `.TH UCRED 1 "" "ucred ${text(program.version() ?? "")}" "User Commands"`,
    ".SH NAME",
    `ucred \\- ${text(program.description())}`,
    ".SH SYNOPSIS",
    ...commands.flatMap((command) => [".br", `.B ucred ${text(usageOf(command))}`]),
    ".SH DESCRIPTION",
    "The kernel records the process that made each connection to a Unix domain socket. This",
    "command shows the server and the clients of a socket (inspect), shows each process that connects",
    "to a new socket (listen), puts a policy in front of servers that do not check their",
    "clients (guard), and checks, tests and queries policy files (policy).",
    ".SH OPTIONS",
    ...definitions([
      ["-V, --version", "Print the version."],
      ["-h, --help", "Print help for ucred or for the command."],
    ]),
    ".SH COMMANDS",
    ...commands.flatMap(commandLines),
    ".SH EXIT STATUS",
    ...definitions(EXIT_CODES),
    ".SH ENVIRONMENT",
    ...definitions(ENVIRONMENT),
    ".SH SIGNALS",
    ...definitions(SIGNALS),
    ".SH SEE ALSO",
    ".BR unix (7),",
    ".BR credentials (7),",
    ".BR systemd.socket (5)",
  ].join("\n");
}

function usageOf(command: Command): string {
  return `${nameOf(command)} ${command.usage()}`;
}

function commandLines(command: Command): readonly string[] {
  const examples = examplesOf(command);
  const options: readonly Option[] = command.options.filter(({ hidden }) => !hidden);
  return [
    `.SS ${text(usageOf(command))}`,
    text(sentence(command.description())),
    ...definitions(command.registeredArguments.map((argument) => [
      argument.required ? `<${argument.name()}>` : `[${argument.name()}]`,
      sentence(argument.description),
    ])),
    ...definitions(options.map((option) => [option.flags, sentence(describeOption(option))])),
    ...(examples.length === 0 ? [] : [".PP", "Examples:"]),
    ...examples.flatMap(([command, about]) => [
      ".PP",
      ".RS 4",
      ".nf",
      text(command),
      ".fi",
      ...(about === "" ? [] : [text(sentence(about))]),
      ".RE",
    ]),
  ];
}

function describeOption(option: Option): string {
  const { description, defaultValue, defaultValueDescription, argChoices } = option;
  const choices = argChoices === undefined ? "" : ` (${argChoices.join(", ")})`;
  const shown = defaultValueDescription ?? defaultValue;
  return `${description}${choices}${shown === undefined ? "" : ` (default: ${shown})`}`;
}

function definitions(pairs: readonly (readonly [string, string])[]): readonly string[] {
  return pairs.flatMap(([term, about]) => [".TP", `.B ${text(term)}`, text(about)]);
}

function sentence(about: string): string {
  const capital = about.charAt(0).toUpperCase() + about.slice(1);
  return /[.?!…]$/.test(capital) ? capital : `${capital}.`;
}

/** Escapes text for roff: a line that begins with "." or "'" would be a request. */
function text(plain: string): string {
  return plain.replaceAll("\\", "\\e").replaceAll("-", "\\-").replace(/^(?=[.'])/gm, "\\&");
}
