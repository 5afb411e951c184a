/** The command line: all commands and options. Help, completions and man page are made from it. */

import { Argument, Command, CommanderError, Option } from "commander";
import { resolve } from "node:path";
import process from "node:process";
import { DEFAULT_CONNECTIONS, DEFAULT_CONNECTIONS_PER_USER } from "../servers/admission/limits.ts";
import { headerNames, id, octal, positive, seconds, socketName } from "./arguments.ts";
import { everyCommand, examplesOf, nameOf } from "./commands.ts";
import { bashCompletion } from "./completions.ts";
import { doctor } from "./doctor.ts";
import { guard, type GuardCommandOptions } from "./guard.ts";
import { inspectSocket } from "./inspect.ts";
import { listen, type ListenCommandOptions } from "./listen.ts";
import { manual } from "./man.ts";
import { type ExitCode, log, logError, print, printable, write } from "./output.ts";
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
    return logError(error);
  }
}

/** Rewrites "help policy explain" to "policy explain --help": commander takes only one name after "help". */
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
    if (below === undefined) return path; // commander reports the unknown command; "--help" would hide it
    at = below;
  }
  return wantsHelp ? [...path, "--help"] : args;
}

/** The program. Its commands pass their exit codes to `done`. */
export function programFor(done: (code: ExitCode) => void): Command {
  const program = new Command("ucred")
    .description("Who is at the other end of a Unix domain socket, and what may they do?")
    .version(VERSION, "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .exitOverride()
    .showSuggestionAfterError()
    .configureOutput({ writeOut: write, outputError: (text, write) => write(errorText(text)) })
    .showHelpAfterError("       See ucred --help")
    .addHelpCommand("help [command...]", "print a command's help");

  const command = (parent: Command, name: string, about: string) => {
    const made = parent.command(name).description(about).helpOption(
      "-h, --help",
      "print this help",
    );
    return made.showHelpAfterError(`       See ucred ${nameOf(made)} --help`);
  };
  const json = () => new Option("--json", "print JSON");

  command(program, "inspect", "show who serves a socket, who may connect, and findings")
    .argument("<socket>", "path, or @name for an abstract socket", socketName)
    .addOption(json())
    .action(async (socket, options) => done(await inspectSocket(socket, options)));

  command(program, "listen", "listen at a socket, and show each process that connects")
    .argument("<socket>", "path, or @name", socketName)
    .option("--policy <file>", "also show the decision of this policy, with the reason")
    .option("--action <text>", "action to decide (default: none)")
    .option("--socket-mode <octal>", "mode of the socket file (default: 0666)", octal)
    .addOption(json())
    .action(async (socket, options: ListenCommandOptions, listener: Command) => {
      if (socket.startsWith("@") && options.socketMode !== undefined) {
        const wrong = "--socket-mode has no effect: an abstract socket has no file";
        listener.error(`error: ${wrong}`, { exitCode: 2 });
      }
      done(await listen(socket, options));
    });

  addGuard(
    command(program, "guard", "put a policy in front of a server"),
    done,
  );
  addPolicy(
    command(program, "policy", "check, test and query policy files"),
    command,
    json,
    done,
  );

  command(program, "doctor", "test what works on this runtime, kernel and system")
    .addOption(json())
    .action(async (options) => done(await doctor(options)));

  command(program, "man", "print the manual page, in roff").action(() => print(manual(program)));
  command(program, "completions", "print a completion script for bash")
    .addArgument(new Argument("<shell>", "the shell").choices(["bash"]))
    .action(() => print(bashCompletion(program)));
  for (const each of everyCommand(program)) addExamples(each);
  return program;
}

/** An error message of commander, in the form of our own. */
function errorText(text: string): string {
  const lines = text.trimEnd().split("\n").map(printable);
  return `${
    lines.join("\n").replace(/^error: /, "ucred: ").replaceAll(/^\((.*)\)$/gm, "       $1")
  }\n`;
}

function addGuard(command: Command, done: (code: ExitCode) => void): void {
  command
    .option("--listen <socket>", "socket to listen at: path, or @name", socketName)
    .option("--systemd [name]", "listen on a socket that systemd passes (socket activation)")
    .requiredOption("--upstream <socket>", "socket of the upstream server", socketName)
    .option("--upstream-user <user>", "required user of the upstream server (at listen(2) time)")
    .addOption(
      new Option("--mode <mode>", "decide connections (stream) or HTTP requests (http)")
        .choices(["stream", "http"]).default("stream"),
    )
    .option("--policy <file>", "policy file (default: only root and the guard's own user)")
    .option("--h2c", "also allow h2c upgrades; requests inside bypass the policy")
    .option(
      "--keep-header <name...>",
      "forward headers that are removed by default: X-Forwarded-For, Remote-User, ...",
      headerNames,
    )
    .option("--shadow <file>", "candidate policy: decides nothing; differences are logged")
    .option(
      "--allow-unsafe-owner",
      "accept policy files that other users can write",
    )
    .option("--socket-mode <octal>", "mode of the socket file (default: 0600)", octal)
    .option("--socket-owner <user>", "owner of the socket file")
    .option("--socket-group <group>", "group of the socket file")
    .option("--audit <file>", "append audit events to this file as JSON lines (-: stderr)")
    .option("--audit-denied", "log only denied connections and requests")
    .option(
      "--max-connections <n>",
      `maximum of open connections (default: ${DEFAULT_CONNECTIONS})`,
      positive,
    )
    .option(
      "--max-per-user <n>",
      `maximum of open connections per user (default: ${DEFAULT_CONNECTIONS_PER_USER})`,
      positive,
    )
    .option(
      "--accept-rate <n>",
      "maximum of new connections per user and second (default: unlimited)",
      positive,
    )
    .option("--drain <seconds>", "time for open connections after SIGTERM", seconds, 10)
    .action(async (options: GuardCommandOptions) => {
      const wrong = contradictionIn(options);
      if (wrong !== undefined) command.error(`error: ${wrong}`, { exitCode: 2 });
      done(await guard(options));
    });
}

/** A message about options that exclude each other, or have no effect. */
function contradictionIn(options: GuardCommandOptions): string | undefined {
  const { listen, systemd, upstream, policy, shadow, audit, auditDenied, h2c, keepHeader, mode } =
    options;
  if ((listen === undefined) === (systemd === undefined)) {
    return "exactly one of --listen and --systemd is required";
  }
  if (listen !== undefined && resolved(listen) === resolved(upstream)) {
    return "--listen and --upstream are the same socket";
  }
  const file = ["socketMode", "socketOwner", "socketGroup"] as const;
  if (file.some((name) => options[name] !== undefined)) {
    const what = "--socket-mode, --socket-owner and --socket-group require --listen with a path";
    if (systemd !== undefined) return `${what}: with --systemd, set SocketMode= in the unit`;
    if (listen!.startsWith("@")) return `${what}: an abstract socket has no file`;
  }
  if (shadow !== undefined && policy === undefined) {
    return "--shadow requires --policy";
  }
  if (auditDenied && audit === undefined) return "--audit-denied requires --audit";
  if (keepHeader !== undefined && mode !== "http") {
    return "--keep-header requires --mode http";
  }
  if (h2c && mode !== "http") return "--h2c requires --mode http";
  return undefined;
}

function resolved(socket: string): string {
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
      .option("--accounts <file>", "users and groups of another machine (YAML, name: id)")
      .addOption(json());
  add("check", "check that a server can use these files")
    .argument("<file...>", "policy files (-: stdin)")
    .option("--allow-unsafe-owner", "accept files that other users can write")
    .action((files, options) => done(policy.check(files, options)));
  add("lint", "find mistakes in these files; exit code 1: errors or warnings")
    .argument("<file...>", "policy files (-: stdin)")
    .option("--abstract-socket", "the policies are for a socket that containers can reach")
    .action((files, options) => done(policy.lint(files, options)));
  add("test", "run the tests in these files")
    .argument("<file...>", "policy files (-: stdin)")
    .action((files, options) => done(policy.test(files, options)));
  add("explain", "explain the decision about a peer; exit code 1: denied")
    .argument("<file>", "policy file (-: stdin)")
    .option("--action <text>", "action that the peer requests")
    .option("--user <user>", "user of the peer, by name or uid, with the groups of the account")
    .option("--gid <id>", "gid of the peer, instead of the account's", id)
    .option("--group <group...>", "groups of the peer, by name or gid, instead of the account's")
    .addOption(
      new Option("--pid <pid>", "use a running process as the peer").argParser(positive)
        .conflicts(["user", "gid", "group", "peer"]),
    )
    .option("--peer <json>", 'the peer as JSON: {"process":{"unit":"a.service"}}')
    .action((file, options) => done(policy.explain(file, options)));
  add("who", "list who may do something")
    .argument("<file>", "policy file (-: stdin)")
    .option("--action <text>", "action to check; without it, connections as such")
    .action((file, options) => done(policy.who(file, options)));
  add("diff", "find a decision that an edit changes; exit code 1: there is one")
    .argument("<before>", "policy file (-: stdin)")
    .argument("<after>", "policy file (-: stdin)")
    .action((before, after, options) => done(policy.diff(before, after, options)));
}

function addExamples(command: Command): void {
  const examples = examplesOf(command);
  if (examples.length === 0) return;
  const lines = examples.map(([command, about]) => `  ${command}${about && `\n      ${about}`}`);
  command.addHelpText("after", `\nExamples:\n${lines.join("\n")}`);
}

/** Whether writing to stdout failed. */
let isUnwritten = false;

/** Installs handlers for failed output and for process warnings. */
function prepare(): void {
  process.stdout.once("error", (error: NodeJS.ErrnoException) => {
    process.stdout.on("error", () => {}); // only the first error is reported
    isUnwritten = error.code !== "EPIPE"; // a closed pipe is no failure: `ucred … | head`
    if (isUnwritten) log(`ucred: cannot write the output: ${printable(error.message)}`);
    // Commands that run until a signal end as after SIGTERM.
    if (process.listenerCount("SIGTERM") > 0) process.kill(process.pid, "SIGTERM");
    else if (isUnwritten) process.exit(2);
  });
  process.stderr.on("error", () => {}); // a guard goes on without a reader of its messages
  const show = process.listeners("warning");
  process.removeAllListeners("warning").on("warning", (warning) => {
    if (warning.name === "UcredWarning") log(`ucred: ${printable(warning.message)}`);
    // Node warns that node:ffi is experimental. Users of the command cannot act on it.
    else if (warning.name !== "ExperimentalWarning") show.forEach((print) => print(warning));
  });
}
