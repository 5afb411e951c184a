/** The command line: every command, option and example, from which help, completions and man page come. */

import { Argument, Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { resolve } from "node:path";
import process from "node:process";
import { isIdentityHeader } from "../guard/headers.ts";
import { guard, type GuardCommandOptions } from "./guard.ts";
import { everyCommand, examplesOf, nameOf } from "./commands.ts";
import { completions, SHELLS } from "./completions.ts";
import { doctor } from "./doctor.ts";
import { inspectSocket } from "./inspect.ts";
import { listen, type ListenCommandOptions } from "./listen.ts";
import { manual } from "./man.ts";
import { type ExitCode, print, printable, tell, tellError, write } from "./output.ts";
import * as policy from "./policy.ts";
import { VERSION } from "./version.ts";

/** Runs a command line. */
export async function run(args: readonly string[]): Promise<ExitCode> {
  prepare();
  let code: ExitCode = 0;
  const program = programFor((result) => code = result);
  try {
    await program.parseAsync(withHelp(program, args), { from: "user" });
    return isUnwritten ? 2 : code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    return tellError(error);
  }
}

/** "help policy explain" is "policy explain --help": commander knows one name after "help". */
function withHelp(program: Command, args: readonly string[]): readonly string[] {
  let [at, wantsHelp] = [program, false];
  const path: string[] = [];
  for (const word of args) {
    if (word.startsWith("-") || at.commands.length === 0) break;
    if (word === "help") {
      wantsHelp = true;
      continue;
    }
    path.push(word);
    const below = at.commands.find((command) => command.name() === word);
    if (below === undefined) return path; // commander reports it, and "--help" would hide that
    at = below;
  }
  return wantsHelp ? [...path, "--help"] : args;
}

/** The program, whose commands give their exit codes to `done`. */
export function programFor(done: (code: ExitCode) => void): Command {
  const program = new Command("ucred")
    .description("Who is at the other end of a Unix domain socket, and what may they do?")
    .version(VERSION, "-V, --version", "print the version")
    .helpOption("-h, --help", "print this")
    .exitOverride()
    .showSuggestionAfterError()
    .configureOutput({ writeOut: write, outputError: (text, write) => write(errorText(text)) })
    .showHelpAfterError("       ucred --help tells more")
    .addHelpCommand("help [command...]", "print a command's help");

  const command = (parent: Command, name: string, about: string) => {
    const made = parent.command(name).description(about).helpOption("-h, --help", "print this");
    return made.showHelpAfterError(`       ucred ${nameOf(made)} --help tells more`);
  };
  const json = () => new Option("--json", "print data, for programs");

  command(program, "inspect", "tell who serves a socket, who may connect, and what is doubtful")
    .argument("<socket>", "path, or @name for an abstract name", socketName)
    .addOption(json())
    .action(async (socket, options) => done(await inspectSocket(socket, options)));

  command(program, "listen", "listen at a socket, and show every process that connects")
    .argument("<socket>", "path, or @name", socketName)
    .option("--policy <file>", "also show what this policy decides, and why")
    .option("--action <text>", "what the policy is asked about")
    .option("--socket-mode <octal>", "file mode of the socket (default: 0666)", octal)
    .addOption(json())
    .action(async (socket, options: ListenCommandOptions, listener: Command) => {
      if (socket.startsWith("@") && options.socketMode !== undefined) {
        const wrong = "--socket-mode is about a file: an abstract name has none";
        listener.error(`error: ${wrong}`, { exitCode: 2 });
      }
      done(await listen(socket, options));
    });

  addGuard(
    command(program, "guard", "stand in front of a server, and let in whom a policy lets in"),
    done,
  );
  addPolicy(
    command(program, "policy", "check, test and question policy files"),
    command,
    json,
    done,
  );

  command(program, "doctor", "tell what this runtime, kernel and system can do")
    .addOption(json())
    .action(async (options) => done(await doctor(options)));

  command(program, "man", "print the manual page, in roff").action(() => print(manual(program)));
  command(program, "completions", "print a script by which a shell completes command lines")
    .addArgument(new Argument("<shell>", "which").choices(SHELLS))
    .action((shell) => print(completions(program, shell)));
  for (const each of everyCommand(program)) addExamples(each);
  return program;
}

/** What commander says of a wrong command line, as we tell errors. */
function errorText(text: string): string {
  const lines = text.trimEnd().split("\n").map(printable);
  return `${
    lines.join("\n").replace(/^error: /, "ucred: ").replaceAll(/^\((.*)\)$/gm, "       $1")
  }\n`;
}

function addGuard(command: Command, done: (code: ExitCode) => void): void {
  command
    .option("--listen <socket>", "where to listen: path, or @name", socketName)
    .option("--systemd [name]", "listen on the socket that systemd passes, instead")
    .requiredOption("--upstream <socket>", "where the server behind listens", socketName)
    .option("--upstream-user <user>", "who it has to run as, as of its listen(2)")
    .addOption(
      new Option("--mode <mode>", "what to decide about: connections, or HTTP requests")
        .choices(["stream", "http"]).default("stream"),
    )
    .option("--policy <file>", "who may; without, root and the guard's own user")
    .option("--h2c", "also pass upgrades to HTTP/2, inside of which no request is decided")
    .option(
      "--keep-header <name...>",
      "pass headers that are otherwise removed: X-Forwarded-For, X-Original-URL, Remote-User, ...",
      headerNames,
    )
    .option("--shadow <file>", "a policy to try out: it decides nothing, and differences are told")
    .option(
      "--allow-unsafe-owner",
      "also policies that others than root and the guard's user can write",
    )
    .option("--socket-mode <octal>", "file mode of the socket (default: 0600)", octal)
    .option("--socket-owner <user>", "owner of the socket's file")
    .option("--socket-group <group>", "group of the socket's file")
    .option("--audit <file>", "write what happens, a line of JSON each; - for stderr")
    .option("--audit-denied", "only what was denied")
    .option("--max-connections <n>", "open at once (default: 2048)", positive)
    .option("--max-per-user <n>", "open at once, of one user (default: 256)", positive)
    .option("--accept-rate <n>", "connections of one user in a second (default: any)", positive)
    .option("--drain <seconds>", "how long connections may go on after SIGTERM", seconds, 10)
    .action(async (options: GuardCommandOptions) => {
      const wrong = contradictionIn(options);
      if (wrong !== undefined) command.error(`error: ${wrong}`, { exitCode: 2 });
      done(await guard(options));
    });
}

/** Names given to --keep-header. */
function headerNames(name: string, before: readonly string[] = []): readonly string[] {
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)) {
    throw new InvalidArgumentError("It is not the name of a header.");
  }
  if (isIdentityHeader(name)) throw new InvalidArgumentError("The guard sets it itself.");
  return [...before, name];
}

/** What of these options would be without effect, or cannot be. */
function contradictionIn(options: GuardCommandOptions): string | undefined {
  const { listen, systemd, upstream, policy, shadow, audit, auditDenied, h2c, keepHeader, mode } =
    options;
  if ((listen === undefined) === (systemd === undefined)) {
    return "give either --listen or --systemd";
  }
  if (listen !== undefined && placeOf(listen) === placeOf(upstream)) {
    return "--listen and --upstream are the same socket";
  }
  const file = ["socketMode", "socketOwner", "socketGroup"] as const;
  if (file.some((name) => options[name] !== undefined)) {
    const who =
      "--socket-mode, --socket-owner and --socket-group are about a file that --listen makes";
    if (systemd !== undefined) {
      return `${who}: with --systemd, the unit has SocketMode= and the like`;
    }
    if (listen!.startsWith("@")) return `${who}: an abstract name has none`;
  }
  if (shadow !== undefined && policy === undefined) {
    return "--shadow takes a --policy to be compared with";
  }
  if (auditDenied && audit === undefined) return "--audit-denied takes an --audit to write to";
  if (keepHeader !== undefined && mode !== "http") {
    return "--keep-header is for --mode http: a stream is passed as it is";
  }
  if (h2c && mode !== "http") return "--h2c is for --mode http: a stream is passed as it is";
  return undefined;
}

function placeOf(socket: string): string {
  return socket.startsWith("@") ? socket : resolve(socket);
}

function addPolicy(
  parent: Command,
  command: (parent: Command, name: string, about: string) => Command,
  json: () => Option,
  done: (code: ExitCode) => void,
): void {
  const add = (name: string, about: string) =>
    command(parent, name, about)
      .option("--accounts <file>", "users and groups of another machine: YAML, name: id under each")
      .addOption(json());
  add("check", "can a server use these files?")
    .argument("<file...>", "policies; - is stdin")
    .option("--allow-unsafe-owner", "whoever they belong to")
    .action((files, options) => done(policy.check(files, options)));
  add("lint", "what is doubtful in these files? Exit code 1: there are errors or warnings")
    .argument("<file...>", "policies; - is stdin")
    .option("--abstract-socket", "they are for a socket that containers can reach")
    .action((files, options) => done(policy.lint(files, options)));
  add("test", "run the tests that stand in these files")
    .argument("<file...>", "policies; - is stdin")
    .action((files, options) => done(policy.test(files, options)));
  add("explain", "what is decided of a peer, and why? Exit code 1: it is denied")
    .argument("<file>", "policy; - is stdin")
    .option("--action <text>", "what the peer asks for")
    .option("--user <user>", "the peer's user, by name or uid, with the groups of the account")
    .option("--gid <id>", "the peer's gid instead", id)
    .option("--group <group...>", "the peer's groups instead, by name or gid")
    .addOption(
      new Option("--pid <pid>", "a process that runs, instead").argParser(positive)
        .conflicts(["user", "gid", "group", "peer"]),
    )
    .option("--peer <json>", 'the peer as data: {"process":{"unit":"a.service"}}')
    .action((file, options) => done(policy.explain(file, options)));
  add("who", "who may do something?")
    .argument("<file>", "policy; - is stdin")
    .option("--action <text>", "what; without, who may where no action is told")
    .action((file, options) => done(policy.who(file, options)));
  add("diff", "does an edit change any decision? Exit code 1: it does")
    .argument("<before>", "policy; - is stdin")
    .argument("<after>", "policy; - is stdin")
    .action((before, after, options) => done(policy.diff(before, after, options)));
}

function addExamples(command: Command): void {
  const examples = examplesOf(command);
  if (examples.length === 0) return;
  const lines = examples.map(([command, about]) => `  ${command}${about && `\n      ${about}`}`);
  command.addHelpText("after", `\nExamples:\n${lines.join("\n")}`);
}

function socketName(text: string): string {
  if (text !== "" && text !== "@") return text;
  throw new InvalidArgumentError("It is a path, or @ and a name.");
}

function octal(text: string): number {
  if (/^0?[0-7]{3}$/.test(text)) return parseInt(text, 8);
  throw new InvalidArgumentError("It is an octal mode, 0660 for instance.");
}

function positive(text: string): number {
  if (/^[0-9]{1,15}$/.test(text) && Number(text) > 0) return Number(text);
  throw new InvalidArgumentError("It is a whole number above 0.");
}

function seconds(text: string): number {
  const number = Number(text);
  if (/^[0-9]+(\.[0-9]+)?$/.test(text) && number <= 1_000_000) return number;
  throw new InvalidArgumentError("It is a number of seconds.");
}

function id(text: string): number {
  if (/^[0-9]{1,10}$/.test(text) && Number(text) < 2 ** 32 - 1) return Number(text);
  throw new InvalidArgumentError("It is an id from 0 to 4294967294.");
}

/** Whether something that was to be printed could not be. */
let isUnwritten = false;

/** What the process does beside the command: about output that nobody takes, and warnings. */
function prepare(): void {
  process.stdout.once("error", (error: NodeJS.ErrnoException) => {
    process.stdout.on("error", () => {}); // it is told once
    isUnwritten = error.code !== "EPIPE"; // `ucred … | head` has what it wants
    if (isUnwritten) tell(`ucred: the output cannot be written: ${printable(error.message)}`);
    // What runs until a signal ends as upon one.
    if (process.listenerCount("SIGTERM") > 0) process.kill(process.pid, "SIGTERM");
    else if (isUnwritten) process.exit(2);
  });
  process.stderr.on("error", () => {}); // a guard goes on if whoever reads its messages has gone
  const show = process.listeners("warning");
  process.removeAllListeners("warning").on("warning", (warning) => {
    if (warning.name === "UcredWarning") tell(`ucred: ${printable(warning.message)}`);
    // Node's, of node:ffi, is nothing that the user of a command can act upon.
    else if (warning.name !== "ExperimentalWarning") show.forEach((print) => print(warning));
  });
}
