/** Defines all commands and options. Help, completions and manual page are generated from them. */

import { Argument, Command, CommanderError, Option } from "commander";
import { resolve } from "node:path";
import process from "node:process";
import { DEFAULT_CONNECTIONS, DEFAULT_CONNECTIONS_PER_USER } from "../servers/admission/limits.ts";
import { IMPORTERS } from "../interop/importers.ts";
import { actionId, headerNames, id, octal, positive, seconds, socketName } from "./arguments.ts";
import { everyCommand, examplesOf, nameOf } from "./commands.ts";
import { SHELLS } from "./completions.ts";
import type { GuardCommandOptions } from "./guard.ts";
import { IMPLICIT } from "../interop/polkit/action_id.ts";
import { inspectSocket } from "./inspect.ts";
import { listen, type ListenCommandOptions } from "./listen.ts";
import { manual } from "./man.ts";
import type { McpBridgeOptions } from "./mcp_bridge.ts";
import { type ExitCode, log, logError, print, printable, write } from "./output.ts";
import * as policy from "./policy.ts";
import type { RunCommandOptions } from "./run.ts";
import { VERSION } from "./version.ts";

// Code that other commands do not use is imported by the action: on Node a command then starts with 0.11 s of
// CPU instead of 0.16, measured.

/** Runs a command line. */
export async function run(args: readonly string[]): Promise<number> {
  prepare();
  let code = 0;
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
    if (below === undefined) return path; // commander reports the unknown command; "--help" would hide the error
    at = below;
  }
  return wantsHelp ? [...path, "--help"] : args;
}

/** The program. Its commands pass their exit codes to `done`. */
export function programFor(done: (code: number) => void): Command {
  const program = new Command("ucred")
    .description(
      "identify the peers of Unix domain sockets, and decide by a policy what they may do",
    )
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
  const json = () => new Option("--json", "print JSON instead of text");

  command(
    program,
    "inspect",
    "show the server and the clients of a socket, who may connect, and findings",
  )
    .argument("<socket>", "path, or @name (abstract socket)", socketName)
    .addOption(json())
    .action(async (socket, options) => done(await inspectSocket(socket, options)));

  command(program, "sockets", "list the listening Unix sockets, who may connect, and findings")
    .addOption(json())
    .option("--watch", "list them every two seconds, until SIGINT or SIGTERM")
    .action(async (options) => {
      const { listSockets, watchSockets } = await import("./sockets.ts");
      done(options.watch ? await watchSockets(options) : listSockets(options));
    });

  command(program, "listen", "listen at a socket, and show each process that connects")
    .argument("<socket>", "path, or @name (abstract socket)", socketName)
    .option("--policy <file>", "also show the decision of this policy about each process")
    .option("--action <text>", "decide about this action (default: the connection itself)")
    .option("--socket-mode <octal>", "set the mode of the socket file (default: 0666)", octal)
    .option("--json", "print one JSON object per line instead of text")
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
  command(program, "run", "run a command as another user, through a privileged helper")
    .requiredOption("--socket <socket>", "the helper at this path, or @name; required", socketName)
    .option("--user <user>", "run the command as this user (default: root; with --group, your own)")
    .option("--group <group>", "run the command with this group as the primary one")
    .option(
      "--helper-user <user>",
      "require that this user (name or uid) called listen(2) on the socket",
      "root",
    )
    .argument("<command>", "absolute path of the command")
    .argument("[args...]", "its arguments; put -- before the command if one begins with -")
    .action(async (file, args, options: RunCommandOptions) => {
      const { runAs } = await import("./run.ts");
      done(await runAs(file, args, options));
    });
  command(
    program,
    "mcp-bridge",
    "connect an MCP client that starts processes to a server at a socket",
  )
    .requiredOption("--socket <socket>", "the server at this path, or @name; required", socketName)
    .option(
      "--http [path]",
      "use Streamable HTTP at this path (default: messages on lines; without a path: /mcp)",
    )
    .option(
      "--server-user <user>",
      "require that this user (name or uid) called listen(2) on the socket " +
        "(default: root or your own user)",
    )
    .action(async (options: McpBridgeOptions) => {
      const { bridge } = await import("./mcp_bridge.ts");
      done(await bridge(options));
    });

  addPolicy(
    command(program, "policy", "check, test and query policy files"),
    command,
    json,
    done,
  );

  addPolkit(command(program, "polkit", "list and write actions of polkit"), command, json, done);

  command(program, "doctor", "test which features work on this runtime, kernel and system")
    .addOption(json())
    .action(async (options) => {
      const { doctor } = await import("./doctor.ts");
      done(await doctor(options));
    });

  command(program, "man", "print the manual page, in roff").action(() => print(manual(program)));
  command(program, "completions", "print a completion script for a shell")
    .addArgument(new Argument("<shell>", "the shell").choices(Object.keys(SHELLS)))
    .action((shell: keyof typeof SHELLS) => print(SHELLS[shell].script(program)));
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
    .optionsGroup("Sockets:")
    .option(
      "--listen <socket>",
      "listen at this path, or @name (abstract socket); required without --systemd",
      socketName,
    )
    .option(
      "--systemd [name]",
      "listen on the socket that systemd passes with this FileDescriptorName= " +
        "(default: the only one)",
    )
    .requiredOption(
      "--upstream <socket>",
      "forward to the server at this path, or @name; required",
      socketName,
    )
    .option(
      "--upstream-user <user>",
      "require that this user (name or uid) called listen(2) on the upstream socket " +
        "(default: any user)",
    )
    .option(
      "--as-peer",
      "connect to the upstream with the uid, gid and groups of the client; " +
        "needs CAP_SETUID and CAP_SETGID (default: with the guard's own)",
    )
    .option("--socket-mode <octal>", "set the mode of the socket file (default: 0600)", octal)
    .option(
      "--socket-owner <user>",
      "set the owner (name or uid) of the socket file (default: the guard's user)",
    )
    .option(
      "--socket-group <group>",
      "set the group (name or gid) of the socket file (default: that of a new file)",
    )
    .optionsGroup("Decisions:")
    .addOption(
      new Option(
        "--mode <mode>",
        "decide about connections, HTTP requests, requests to a Docker engine, D-Bus messages, or " +
          "MCP messages on lines",
      )
        .choices(["stream", "http", "docker", "dbus", "mcp"]).default("stream"),
    )
    .option(
      "--policy <file>",
      "decide by this policy (default: allow root and the guard's own user)",
    )
    .option(
      "--shadow <file>",
      "log which decisions this candidate policy would change (default: none)",
    )
    .option(
      "--allow-unsafe-owner",
      "accept policy files that other users can change (default: reject them)",
    )
    .option(
      "--learn <file>",
      "record the requests of each client in this file, for ucred policy suggest; in http and docker mode (default: no recording)",
    )
    .option(
      "--state <file>",
      "keep the owners of containers and execs in this file, in docker mode (default: in memory)",
    )
    .optionsGroup("HTTP:")
    .option(
      "--keep-header <name...>",
      "forward these headers of clients, for example X-Forwarded-For (default: remove them)",
      headerNames,
    )
    .option(
      "--http2",
      "also serve clients that speak HTTP/2 with prior knowledge, such as those of gRPC; not on Deno " +
        "(default: refuse them)",
    )
    .option(
      "--h2c",
      "forward upgrades to h2c; the policy does not decide the requests inside " +
        "(default: remove the Upgrade header)",
    )
    .optionsGroup("Audit log:")
    .option(
      "--audit <file>",
      "append events to this file (-: stderr) as JSON lines (default: no audit log)",
    )
    .option("--audit-denied", "log only denied connections and requests (default: all)")
    .optionsGroup("Metrics and health:")
    .option(
      "--metrics <socket>",
      "serve /metrics (Prometheus), /healthz and /readyz at this path, or @name (default: none)",
      socketName,
    )
    .option(
      "--metrics-mode <octal>",
      "set the mode of the socket file of --metrics (default: 0600)",
      octal,
    )
    .option(
      "--metrics-policy <file>",
      "decide by this policy who reads metrics (default: allow root and the guard's own user)",
    )
    .optionsGroup("Limits:")
    .option(
      "--max-connections <n>",
      `maximum number of open connections (default: ${DEFAULT_CONNECTIONS})`,
      positive,
    )
    .option(
      "--max-per-user <n>",
      `maximum number of open connections per user (default: ${DEFAULT_CONNECTIONS_PER_USER})`,
      positive,
    )
    .option(
      "--accept-rate <n>",
      "maximum number of new connections per user and second (default: unlimited)",
      positive,
    )
    .option(
      "--body-timeout <seconds>",
      "time in seconds that may pass without a byte of a request's body; 0: unlimited (default: 300)",
      seconds,
    )
    .option(
      "--drain <seconds>",
      "time in seconds to wait for open connections after SIGTERM or SIGINT",
      seconds,
      10,
    )
    .action(async (options: GuardCommandOptions) => {
      const wrong = contradictionIn(options);
      if (wrong !== undefined) command.error(`error: ${wrong}`, { exitCode: 2 });
      const { guard } = await import("./guard.ts");
      done(await guard(options));
    });
}

/** A message about options that exclude each other, or have no effect. */
function contradictionIn(options: GuardCommandOptions): string | undefined {
  const { listen, systemd, upstream, policy, shadow, audit, auditDenied, mode } = options;
  const {
    h2c,
    http2,
    keepHeader,
    bodyTimeout,
    asPeer,
    learn,
    state,
    metrics,
    metricsMode,
    metricsPolicy,
  } = options;
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
  if (metrics === undefined) {
    if (metricsMode !== undefined) return "--metrics-mode requires --metrics";
    if (metricsPolicy !== undefined) return "--metrics-policy requires --metrics";
  } else {
    if ([listen, upstream].some((each) => each && resolved(each) === resolved(metrics))) {
      return "--metrics requires a socket of its own";
    }
    if (metricsMode !== undefined && metrics.startsWith("@")) {
      return "--metrics-mode requires --metrics with a path: an abstract socket has no file";
    }
  }
  if (shadow !== undefined && policy === undefined) {
    return "--shadow requires --policy";
  }
  if (auditDenied && audit === undefined) return "--audit-denied requires --audit";
  if (keepHeader !== undefined && mode !== "http") {
    return "--keep-header requires --mode http";
  }
  if (h2c && mode !== "http") return "--h2c requires --mode http";
  if (http2 && mode !== "http") return "--http2 requires --mode http";
  if (bodyTimeout !== undefined && mode !== "http" && mode !== "docker") {
    return "--body-timeout requires --mode http or --mode docker";
  }
  if (learn !== undefined && mode !== "http" && mode !== "docker") {
    return "--learn requires --mode http or --mode docker";
  }
  if (state !== undefined && mode !== "docker") return "--state requires --mode docker";
  if (asPeer && mode === "docker") {
    return "--as-peer has no effect in docker mode: Docker does not identify its peers";
  }
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
      .option(
        "--accounts <file>",
        "use the users and groups (name: id) of this YAML file (default: this system's)",
      )
      .addOption(json());
  const files = "policy files, - for stdin";
  const file = "policy file, - for stdin";
  add("check", "check that a server can use policy files; exit code 1: it cannot use one")
    .argument("<file...>", files)
    .option(
      "--allow-unsafe-owner",
      "accept files that other users can change (default: reject them)",
    )
    .action((files, options) => done(policy.check(files, options)));
  add("lint", "find mistakes in policy files; exit code 1: errors or warnings")
    .argument("<file...>", files)
    .option(
      "--abstract-socket",
      "also find rules that accept root of containers that can connect to an abstract socket",
    )
    .action((files, options) => done(policy.lint(files, options)));
  add("test", "run the tests in policy files; exit code 1: a test fails")
    .argument("<file...>", files)
    .option("--watch", "run them again when a file changes, until SIGINT or SIGTERM")
    .action(async (files, options) =>
      done(options.watch ? await policy.watchTests(files, options) : policy.test(files, options))
    );
  add("explain", "explain the decision about a peer; exit code 1: denied")
    .argument("<file>", file)
    .option("--action <text>", "decide about this action (default: the connection itself)")
    .option("--attributes <json>", "use these attributes of the request: JSON, or a JSON file")
    .addOption(
      new Option(
        "--request <request>",
        "explain this request: JSON, or a file; FILE:LINE of an audit log or of guard --learn",
      ).conflicts("action"),
    )
    .option("--user <user>", "decide about this user (name or uid) with its groups")
    .option("--gid <id>", "use this primary group (default: the user's)", id)
    .option(
      "--group <group...>",
      "use these supplementary groups, by name or gid (default: the user's)",
    )
    .addOption(
      new Option("--pid <pid>", "decide about this running process").argParser(positive)
        .conflicts(["user", "gid", "group", "peer"]),
    )
    .option("--peer <json>", 'decide about this peer: {"process":{"unit":"a.service"}}')
    .action(async (file, options) => done(await policy.explain(file, options)));
  add("who", "list the peers that a policy allows")
    .argument("<file>", file)
    .option(
      "--action <text>",
      "list the peers that may do this action (default: the connection itself)",
    )
    .action((file, options) => done(policy.who(file, options)));
  add("diff", "find a decision that an edit changes; exit code 1: there is one")
    .argument("<before>", file)
    .argument("<after>", file)
    .option("--only-narrower", "report only a decision that allows more than before")
    .action((before, after, options) => done(policy.diff(before, after, options)));
  add("suggest", "print a policy that allows the requests that a guard with --learn has recorded")
    .argument("<file>", "the file of ucred guard --learn")
    .addOption(
      new Option("--by <fact>", "write the rules by this fact about callers")
        .choices(["uid", "group", "unit", "container"]).default("uid"),
    )
    .option(
      "--include-denied",
      "also allow requests that were denied (default: only allowed requests)",
    )
    .action(async (file, options) => done(await policy.suggest(file, options)));
  command(parent, "fmt", "format policy files; comments and the order of fields stay")
    .argument("<file...>", "policy files; - formats stdin to stdout")
    .option(
      "--check",
      "change nothing, and list the files that are not formatted; exit code 1: a file is not",
    )
    .action(async (files, options) => {
      const { format } = await import("./policy_fmt.ts");
      done(format(files, options));
    });
  command(parent, "import", "convert files of another system to a policy that decides alike")
    .addArgument(new Argument("<kind>", "the kind of files").choices(Object.keys(IMPORTERS)))
    .argument("<file...>", "files of that kind")
    .addOption(json())
    .action(async (kind, files, options) => done(await policy.importFiles(kind, files, options)));
}

function addPolkit(
  parent: Command,
  command: (parent: Command, name: string, about: string) => Command,
  json: () => Option,
  done: (code: ExitCode) => void,
): void {
  command(parent, "actions", "list the actions of this system, or check and list those of files")
    .argument("[file...]", ".policy files (default: those of polkitd's folders)")
    .addOption(json())
    .action(async (files, options) => {
      const { listActions } = await import("./polkit.ts");
      done(listActions(files, options));
    });
  const result = (flag: string, about: string, value: string) =>
    new Option(`--${flag} <result>`, about).choices(IMPLICIT).default(value);
  command(parent, "new", "print the .policy file of an action")
    .argument("<id>", "the id: org.example.restart", actionId)
    .requiredOption("--description <text>", "describe the action, for administrators")
    .requiredOption("--message <text>", "ask for the password with this text")
    .option("--vendor <text>", "name the supplier")
    .option("--owner <user>", "let this user's services query polkitd about other processes, too")
    .addOption(result("active", "decide about active local sessions", "auth_admin_keep"))
    .addOption(result("inactive", "decide about inactive local sessions", "auth_admin"))
    .addOption(result("others", "decide about all other processes", "auth_admin"))
    .action(async (id, options) => {
      const { newAction } = await import("./polkit.ts");
      done(newAction(id, options));
    });
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
    // A command that runs until a signal ends in the same way as on SIGTERM.
    if (process.listenerCount("SIGTERM") > 0) process.kill(process.pid, "SIGTERM");
    else if (isUnwritten) process.exit(2);
  });
  process.stderr.on("error", () => {}); // a guard continues without a reader of its messages
  const show = process.listeners("warning");
  process.removeAllListeners("warning").on("warning", (warning) => {
    if (warning.name === "UcredWarning") log(`ucred: ${printable(warning.message)}`);
    // Node warns that node:ffi is experimental. Users of the command cannot act on it.
    else if (warning.name !== "ExperimentalWarning") show.forEach((print) => print(warning));
  });
}
