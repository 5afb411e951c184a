/** The command line → a manual page, in roff: man(7). */

import type { Command, Option } from "commander";
import { everyCommand, examplesOf, nameOf } from "./commands.ts";

const EXIT_CODES = [
  ["0", "Fine."],
  ["1", "There are findings, or the answer is no."],
  ["2", "It could not be done: a wrong option, a file that cannot be read, no permission."],
] as const;

const ENVIRONMENT = [
  ["NO_COLOR", "If it is set and not empty: no colours. TERM=dumb does the same."],
  ["FORCE_COLOR", "If it is set and neither empty nor 0: colours, also where no terminal is."],
  ["NOTIFY_SOCKET", "Where guard tells the service manager that it is ready, and that it ends."],
  ["LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES", "The sockets that --systemd takes."],
] as const;

const SIGNALS = [
  [
    "SIGTERM, SIGINT",
    "guard lets connections end for --drain seconds; listen ends. Again: at once.",
  ],
  ["SIGHUP", "guard and listen read the policy anew, and guard opens its audit log anew."],
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
    "For each connection to a Unix domain socket the kernel records who made it. This command shows",
    "that of sockets that others serve (inspect) and of one that it serves itself (listen), stands in",
    "front of servers that do not look (guard), and checks, tests and questions the policies that",
    "decide who may do what.",
    ".SH OPTIONS",
    ...definitions([
      ["-V, --version", "Print the version."],
      ["-h, --help", "Print help: of ucred, or of the command before it."],
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

/** Text as roff takes it: a line that begins with "." or "'" would be a request. */
function text(plain: string): string {
  return plain.replaceAll("\\", "\\e").replaceAll("-", "\\-").replace(/^(?=[.'])/gm, "\\&");
}
