/** `ucred inspect`: shows who serves a socket, who may connect, who is connected, and findings. */

import { Buffer } from "node:buffer";
import { type BigIntStats, lstatSync, readdirSync, realpathSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { UcredError } from "../core/errors.ts";
import { isSticky, unsafeFolderReason } from "../core/ownership.ts";
import type { Peer, PeerJSON } from "../core/peer.ts";
import type { ProcessJSON } from "../core/process.ts";
import { addressOf, displayName } from "../core/socket_name.ts";
import { identify } from "../identity/identify.ts";
import { peerOfPid } from "../identity/peer_of_pid.ts";
import { accountName, ownUid } from "../system/accounts.ts";
import { type BigFileStats, pathSteps } from "../system/path_owners.ts";
import { hasOwnGroupOnly, isTrusted } from "../system/trusted_owner.ts";
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
import { crowdTexts, peerText } from "./peers.ts";

/** A file or folder with its owner and mode. */
interface FileReport {
  readonly path: string;
  readonly uid: number;
  readonly gid: number;
  /** Octal, as for chmod(1). */
  readonly mode: string;
}

/** A symbolic link on the path, or a folder that contains one. */
interface StepReport extends FileReport {
  readonly isLink: boolean;
}

/** A finding or a note. */
interface Remark {
  readonly kind: string;
  readonly message: string;
}

/** A peer without its capability lists, which have 40 names each for a process of root. */
type PeerSummary = Omit<PeerJSON, "process"> & {
  readonly process?: Omit<ProcessJSON, "capabilities">;
};

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
  #folders: readonly FileReport[] = [];
  #via: readonly StepReport[] = [];
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
      this.#folders = foldersOf(dirname(realpathSync(this.#path)));
      const isListed = ({ path }: FileReport) => this.#folders.some((each) => each.path === path);
      this.#via = stepsTo(this.#path).filter((step) => !isListed(step));
    }
    const socket = await connectOrCode(this.#path);
    let isDead = false;
    if (typeof socket === "string") isDead = this.#checkFailure(socket);
    else {
      this.#socket = socket;
      this.#server = identify(socket, { pin: true });
    }
    if (this.#file !== undefined) this.#listProcesses(this.#file, isDead);
    this.#checkFile();
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
      const peersOf = (sockets: readonly number[]) =>
        [...new Set(sockets.flatMap((socket) => holders.get(socket) ?? []))]
          .sort((a, b) => a - b).flatMap(peerOrNone);
      this.#holders = peersOf(listeners);
      this.#clients = peersOf(others);
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

  #checkFile(): void {
    if (this.#file === undefined) {
      const message = "An abstract socket has no mode: every process in the network namespace, " +
        "also in containers that share it, can connect, and can bind the name when it is free";
      return this.#find("abstract", message);
    }
    const user = this.#server?.uid ?? ownUid();
    const folders = this.#folders.map((folder) => ({ ...folder, isLink: false }));
    for (const { path, uid, gid, mode, isLink } of [...folders, ...this.#via]) {
      const access = isLink ? 0 : parseInt(mode, 8); // the mode of a link is always 0777
      const why = unsafeFolderReason(
        { uid, mode: access },
        (owner) => isTrusted(owner, user),
        () => hasOwnGroupOnly(path, { gid }, user),
      );
      if (why === undefined) continue;
      const what = isLink ? "link" : "folder";
      this.#find(what, `The ${what} ${path} ${why}: others can replace the socket`);
    }
    const folder = this.#folders[0];
    if (folder !== undefined && isSticky({ uid: 0, mode: parseInt(folder.mode, 8) })) {
      const message = `Every user can create files in ${folder.path}: while the server is down, ` +
        "another process can bind its path";
      this.#find("sticky", message);
    }
    const mode = Number(this.#file.mode);
    if ((mode & 0o002) !== 0 && this.#folders.every(({ mode }) => (parseInt(mode, 8) & 1) !== 0)) {
      const message = "Every user can connect: the server must check its clients itself, " +
        "or run behind `ucred guard`";
      this.#find("everyone", message);
    }
  }

  #checkServer(): void {
    const server = this.#server;
    if (server === undefined) return;
    if (this.#file !== undefined && ![0n, BigInt(server.uid)].includes(this.#file.uid)) {
      const message = `The socket belongs to uid ${this.#file.uid}, who can replace it; ` +
        `the server is uid ${server.uid}`;
      this.#find("owner", message);
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
      file: this.#file && fileReport(this.#path, this.#file),
      folders: this.#folders,
      via: this.#via,
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
    const { file, folders, via } = this.report();
    print(paint("bold", printable(displayName(this.#path))));
    if (file !== undefined) {
      line("socket", fileText(file));
      line("may connect", whoMayConnect(file, folders));
    } else line("may connect", "every process in this network namespace");
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

/** Who may connect, by the modes of the file and of its folders. */
function whoMayConnect(file: FileReport, folders: readonly FileReport[]): string {
  const mode = parseInt(file.mode, 8);
  const narrow = folders.filter(({ mode }) => (parseInt(mode, 8) & 0o001) === 0);
  const isOpen = (mode & 0o002) !== 0;
  if (isOpen && narrow.length === 0) return "every user";
  const who = isOpen ? ["every user"] : [
    "root",
    ...((mode & 0o200) !== 0 && file.uid !== 0 ? [nameOf("user", file.uid)] : []),
    ...((mode & 0o020) !== 0 ? [`group ${nameOf("group", file.gid)}`] : []),
  ];
  if (narrow.length === 0) return who.join(", ");
  const paths = narrow.map(({ path }) => printable(path)).join(", ");
  return `${who.join(", ")}; only with search permission on ${paths}`;
}

/** A connection, or the code of the error. */
function connectOrCode(path: string): Promise<Socket | string> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once("connect", () => resolve(socket));
    socket.on("error", (error) => resolve((error as { code?: string }).code ?? error.message));
  });
}

function peerOrNone(pid: number): Peer[] {
  try {
    return [peerOfPid(pid)];
  } catch (error) {
    if (error instanceof UcredError) return []; // it has ended
    throw error;
  }
}

function summaryOf(peer: Peer): PeerSummary {
  const { process, ...rest } = peer.toJSON();
  if (process === undefined) return rest;
  const { capabilities: _, ...summary } = process;
  return { ...rest, process: summary };
}

function foldersOf(path: string): readonly FileReport[] {
  const folders: FileReport[] = [];
  for (let at = path;; at = dirname(at)) {
    folders.push(fileReport(at, statSync(at, { bigint: true })));
    if (at === dirname(at)) return folders;
  }
}

/** Each folder and link that the kernel visits when it resolves a path, once. */
function stepsTo(path: string): readonly StepReport[] {
  const steps = new Map<string, StepReport>();
  for (const { path: at, file } of pathSteps(path)) {
    const isLink = file.isSymbolicLink();
    if (isLink || file.isDirectory()) steps.set(at, { ...fileReport(at, file), isLink });
  }
  return [...steps.values()];
}

function fileReport(path: string, { uid, gid, mode }: BigFileStats): FileReport {
  const octal = (Number(mode) & 0o7777).toString(8).padStart(4, "0");
  return { path, uid: Number(uid), gid: Number(gid), mode: octal };
}

function fileText(file: FileReport): string {
  return `${file.mode} ${ownerText(file)}`;
}

function ownerText({ uid, gid }: FileReport): string {
  return `${nameOf("user", uid)} ${nameOf("group", gid)}`;
}

function nameOf(kind: "user" | "group", id: number): string {
  return printable(accountName(kind, id) ?? String(id));
}
