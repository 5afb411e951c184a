/** `ucred inspect`: shows who serves a socket, who may connect, who is connected, and findings. */

import { Buffer } from "node:buffer";
import { type BigIntStats, lstatSync, readdirSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { UcredError } from "../core/errors.ts";
import type { Peer } from "../core/peer.ts";
import { addressOf, displayName } from "../core/socket_name.ts";
import { identify } from "../identity/identify.ts";
import { ownUid } from "../system/accounts.ts";
import { connectionsElsewhere, holdersOf, isBound, socketsAt } from "../system/unix_sockets.ts";
import {
  type ExitCode,
  paint,
  print,
  printable,
  printJson,
  UsageError,
  width,
  wrap,
} from "./output.ts";
import { crowdTexts, peersOf, type PeerSummary, peerText, summaryOf } from "./peers.ts";
import {
  fileFindings,
  type FileReport,
  fileText,
  ownerFindings,
  ownerText,
  type Remark,
  type SocketFile,
  socketFile,
  type StepReport,
  whoMayConnect,
} from "./socket_file.ts";

/** The result of an inspection. */
interface SocketReport {
  readonly path: string;
  /** `undefined` for an abstract socket, which has no mode. */
  readonly file: FileReport | undefined;
  /** From the socket's folder up to "/". */
  readonly folders: readonly FileReport[];
  /** Symbolic links on the path, and the folders that contain them. */
  readonly via: readonly StepReport[];
  /** The process that called listen(2); `undefined` if no server accepts connections. */
  readonly server: PeerSummary | undefined;
  /**
   * Visible processes that hold the listening socket now. `null`, like the fields below, if that cannot
   * be determined.
   */
  readonly holders: readonly PeerSummary[] | null;
  /** The number of connections from our network namespace. */
  readonly connections: number | null;
  /** The number of visible connections from other network namespaces. */
  readonly connectionsElsewhere: number | null;
  /** The visible clients. */
  readonly clients: readonly PeerSummary[] | null;
  readonly findings: readonly Remark[];
  readonly notes: readonly Remark[];
}

/** The size of `sun_path`, <sys/un.h>. An abstract name may fill it, including its NUL. */
const MAX_NAME_BYTES = process.platform === "linux" ? 108 : 104;

/** Runs the command. Exit code 1: there are findings. */
export async function inspectSocket(
  name: string,
  { json }: { readonly json?: boolean },
): Promise<ExitCode> {
  if (name.startsWith("@") && Buffer.byteLength(name) > MAX_NAME_BYTES) {
    throw new UsageError(`An abstract name has at most ${MAX_NAME_BYTES - 1} bytes after the @`);
  }
  const path = name.startsWith("@") ? addressOf(name) : resolve(name);
  using inspection = new Inspection(path);
  await inspection.run();
  if (json) printJson(inspection.report());
  else inspection.print();
  return inspection.report().findings.length === 0 ? 0 : 1;
}

class Inspection {
  readonly #path: string;
  readonly #findings: Remark[] = [];
  readonly #notes: Remark[] = [];
  #file: BigIntStats | undefined;
  #socketFile: SocketFile | undefined;
  #server: Peer | undefined;
  #holders: readonly Peer[] = [];
  #clients: readonly Peer[] = [];
  /** `undefined` if the kernel's list of sockets lacks this one. */
  #connections: number | undefined;
  /** Visible connections from other network namespaces. */
  #elsewhere = 0;
  /** Connections of processes that are hidden from us. */
  #unseen = 0;
  #socket: Socket | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  async run(): Promise<void> {
    if (!this.#path.startsWith("\0")) {
      this.#file = fileAt(this.#path);
      if (this.#file.isSymbolicLink()) {
        this.#find("link", "The path is a symbolic link: its owner can point it elsewhere");
        this.#file = statSync(this.#path, { bigint: true });
      }
      if (!this.#file.isSocket()) throw notASocket(this.#path, this.#file);
      this.#socketFile = socketFile(this.#path, this.#file);
    }
    const socket = await connectOrCode(this.#path);
    let isDead = false;
    if (typeof socket === "string") isDead = this.#checkFailure(socket);
    else {
      this.#socket = socket;
      this.#server = identify(socket, { pin: true });
    }
    if (this.#file !== undefined) this.#listProcesses(this.#file, isDead);
    this.#findings.push(...fileFindings(this.#socketFile, this.#server?.uid ?? ownUid()));
    this.#checkServer();
  }

  #listProcesses(file: BigIntStats, isDead: boolean): void {
    try {
      const { listeners, connections } = socketsAt(file);
      if (listeners.length === 0 && !isDead) {
        const message =
          "The processes that hold the socket, and the clients, cannot be determined: " +
          "the kernel lists no listener for this file. The server may be in another network " +
          "namespace (run ucred there with nsenter), or the file system reports another device " +
          "than the kernel (overlayfs)";
        return this.#find("unlisted", message);
      }
      const clients = connections.map(({ client }) => client);
      const holders = holdersOf([...listeners, ...clients]);
      // Excludes our own connection.
      const others = clients.filter((socket) => !holders.get(socket)?.includes(process.pid));
      const peersAt = (sockets: readonly number[]) =>
        peersOf(
          [...new Set(sockets.flatMap((socket) => holders.get(socket) ?? []))].sort((a, b) =>
            a - b
          ),
        );
      this.#holders = peersAt(listeners);
      this.#clients = peersAt(others);
      this.#connections = others.length;
      this.#elsewhere = connectionsElsewhere(
        listeners[0]!,
        [...new Set(listeners.flatMap((socket) => holders.get(socket) ?? []))],
      );
      this.#unseen = others.filter((socket) => !holders.has(socket)).length;
    } catch (error) {
      if (!(error instanceof UcredError)) throw error;
      this.#find("unlisted", `The clients cannot be determined: ${error.message}`);
    }
  }

  /** @returns Whether no server listens any more. */
  #checkFailure(code: string): boolean {
    const isBusy = code === "EAGAIN" || (code === "ECONNREFUSED" && isBound(this.#path) === true);
    if (code === "ECONNREFUSED" && !isBusy && this.#file === undefined) {
      const name = displayName(this.#path);
      throw new UsageError(`No server listens at ${name}. Run \`ss -xl\` to list all names`);
    }
    if (isBusy) {
      const message =
        "The socket accepts no connection now: its backlog is full, or it is not a stream socket";
      this.#find("busy", message);
    } else if (code === "ECONNREFUSED") {
      this.#find("dead", "No server listens: it has ended without removing the file of its socket");
    } else {
      const message = {
        EACCES: "Permission to connect is denied, so the server is unknown: run ucred as root",
        EPROTOTYPE: "It is a datagram or packet socket, not a stream socket: the server is unknown",
      }[code] ?? `Connecting failed with ${code}: the server is unknown`;
      this.#find("unreachable", message);
    }
    return code === "ECONNREFUSED" && !isBusy;
  }

  #checkServer(): void {
    const server = this.#server;
    if (server === undefined) return;
    if (this.#socketFile !== undefined) {
      this.#findings.push(...ownerFindings(this.#socketFile.file, [server.uid]));
    }
    if (server.ambiguous.length > 0) {
      this.#find("ambiguous", "The server is outside our user namespace: its ids are ambiguous");
    }
    const { namespaces, container } = server.process.facts;
    if (server.pid === 1) {
      this.#note("activated", "The service manager listens, and passes the socket to the server");
    } else if (server.alive === false) {
      this.#find(
        "handed",
        "The process that called listen(2) has ended; other processes hold its socket",
      );
    } else if (
      this.#holders.length > 0 && !this.#holders.some(({ pid }) => pid === server.pid)
    ) {
      const message = "The process that called listen(2) does not hold the socket any more: " +
        "it was passed to other processes";
      this.#find("handed", message);
    }
    if (container.state === "known") {
      this.#note("container", `The server runs in container ${container.value.slice(0, 12)}`);
    } else if (namespaces.state === "known" && namespaces.value.user?.ours === false) {
      this.#note("namespace", "The server runs in another user namespace");
    }
  }

  #find(kind: string, message: string): void {
    this.#findings.push({ kind, message });
  }

  #note(kind: string, message: string): void {
    this.#notes.push({ kind, message });
  }

  report(): SocketReport {
    const isListed = this.#connections !== undefined;
    return {
      path: displayName(this.#path),
      file: this.#socketFile?.file,
      folders: this.#socketFile?.folders ?? [],
      via: this.#socketFile?.via ?? [],
      server: this.#server && summaryOf(this.#server),
      holders: isListed ? this.#holders.map(summaryOf) : null,
      connections: this.#connections ?? null,
      connectionsElsewhere: isListed ? this.#elsewhere : null,
      clients: isListed ? this.#clients.map(summaryOf) : null,
      findings: this.#findings,
      notes: this.#notes,
    };
  }

  print(): void {
    const { folders, via } = this.report();
    print(paint("bold", printable(displayName(this.#path))));
    if (this.#socketFile !== undefined) line("socket", fileText(this.#socketFile.file));
    line("may connect", whoMayConnect(this.#socketFile));
    for (const [at, folder] of folders.entries()) {
      line(at === 0 ? "folders" : "", `${fileText(folder)}  ${printable(folder.path)}`);
    }
    for (const [at, step] of via.entries()) {
      const text = `${step.isLink ? "link" : step.mode} ${ownerText(step)}`;
      line(at === 0 ? "via" : "", `${text}  ${printable(step.path)}`);
    }
    line("listens", this.#server === undefined ? "?" : peerText(this.#server));
    for (const holder of this.#holders) {
      if (holder.pid !== this.#server?.pid) line("held by", peerText(holder));
    }
    this.#printClients();
    for (const { message } of this.#notes) line("note", printable(message));
    if (this.#findings.length === 0) line("findings", "none");
    for (const { message } of this.#findings) line("finding", printable(message), "yellow");
  }

  #printClients(): void {
    if (this.#file === undefined) {
      return line("connected", "cannot be determined for an abstract socket");
    }
    if (this.#connections === undefined) return line("connected", "cannot be determined");
    const more = this.#elsewhere === 0 ? "" : `, ${this.#elsewhere} from other network namespaces`;
    if (this.#connections === 0) return line("connected", `none in this network namespace${more}`);
    const who = this.#unseen === 0 ? "" : `, ${this.#unseen} of them visible only to root`;
    line("connected", `${this.#connections}${process.geteuid?.() === 0 ? "" : who}${more}`);
    for (const text of crowdTexts(this.#clients)) line("", text);
  }

  [Symbol.dispose](): void {
    this.#socket?.destroy();
    for (const peer of [this.#server, ...this.#holders, ...this.#clients]) peer?.close();
  }
}

/** Prints a title and a text, which is wrapped on a terminal. */
function line(title: string, text: string, style?: "yellow"): void {
  const lines = wrap(text, width() - 14);
  for (const [at, part] of lines.entries()) {
    const shown = style === undefined ? part : paint(style, part);
    print(`  ${(at === 0 ? title : "").padEnd(11)} ${shown}`.trimEnd());
  }
}

/** The file. If it does not exist, the error lists the sockets in its folder. */
function fileAt(path: string): BigIntStats {
  try {
    return lstatSync(path, { bigint: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    let folder = dirname(path);
    let missing: string | undefined;
    for (; !isFolder(folder); folder = dirname(folder)) missing = folder;
    throw new UsageError(
      missing === undefined
        ? `${path} does not exist. ${socketsIn(folder)}`
        : `${path} does not exist: there is no folder ${missing}`,
    );
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true ||
    path === dirname(path);
}

function notASocket(path: string, file: BigIntStats): UsageError {
  if (file.isDirectory()) return new UsageError(`${path} is a folder. ${socketsIn(path)}`);
  return new UsageError(`${path} is not a socket. ${socketsIn(dirname(path))}`);
}

/** The number of names in an error message. */
const MAX_NAMES_SHOWN = 8;

function socketsIn(folder: string): string {
  let names: readonly string[];
  try {
    // The types of directory entries do not help: Deno reports no sockets.
    const isSocket = (name: string) =>
      lstatSync(join(folder, name), { throwIfNoEntry: false })?.isSocket();
    names = readdirSync(folder).filter(isSocket).sort();
  } catch {
    return `The sockets in ${folder} cannot be listed`;
  }
  if (names.length === 0) return `There are no sockets in ${folder}`;
  const more = names.length > MAX_NAMES_SHOWN ? `, and ${names.length - MAX_NAMES_SHOWN} more` : "";
  return `Sockets in ${folder}: ${names.slice(0, MAX_NAMES_SHOWN).join(", ")}${more}`;
}

/** A connection, or the code of the error. */
function connectOrCode(path: string): Promise<Socket | string> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once("connect", () => resolve(socket));
    socket.on("error", (error) => resolve((error as { code?: string }).code ?? error.message));
  });
}
