/** `ucred inspect`: who serves a socket, who may connect, who is connected, and what is doubtful. */

import { Buffer } from "node:buffer";
import {
  type BigIntStats,
  lstatSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  statSync,
} from "node:fs";
import { connect, type Socket } from "node:net";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { UcredError } from "../core/errors.ts";
import { isSticky, unsafeFolderReason } from "../core/ownership.ts";
import type { Peer, PeerJSON } from "../core/peer.ts";
import type { ProcessJSON } from "../core/process.ts";
import { identify } from "../identity/identify.ts";
import { peerOfPid } from "../identity/peer_of_pid.ts";
import { accountName, ownUid } from "../system/accounts.ts";
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

/** A file or folder, and who may write to it. */
interface FileReport {
  readonly path: string;
  readonly uid: number;
  readonly gid: number;
  /** Octal, as chmod(1) takes it. */
  readonly mode: string;
}

/** A link that the path leads through, or a folder that is on the way for the sake of one. */
interface StepReport extends FileReport {
  readonly isLink: boolean;
}

/** Something that is doubtful, or worth to know. */
interface Remark {
  readonly kind: string;
  readonly message: string;
}

/** A process without its capability lists, which are 40 names each of a root process. */
type PeerSummary = Omit<PeerJSON, "process"> & {
  readonly process?: Omit<ProcessJSON, "capabilities">;
};

/** What is known of a socket. */
interface SocketReport {
  readonly path: string;
  /** `undefined` for an abstract name, to which everybody can connect. */
  readonly file: FileReport | undefined;
  /** From the socket's folder up to "/". */
  readonly folders: readonly FileReport[];
  /** What else the path leads through: links, and the folders that they stand in. */
  readonly way: readonly StepReport[];
  /** Who called listen(2); `undefined` if nobody answers. */
  readonly server: PeerSummary | undefined;
  /**
   * Processes that hold the listening socket now, of those that we may see; `null`, as the two below, if
   * that cannot be determined.
   */
  readonly holders: readonly PeerSummary[] | null;
  /** How many connections there are of clients in our network namespace. */
  readonly connections: number | null;
  /** How many more connections there are of clients in other network namespaces; of those that we may see. */
  readonly connectionsElsewhere: number | null;
  /** The clients, of those that we may see. */
  readonly clients: readonly PeerSummary[] | null;
  readonly doubts: readonly Remark[];
  readonly notes: readonly Remark[];
}

/** `sun_path`, <sys/un.h>: an abstract name takes all of it, its NUL included. */
const MAX_NAME_BYTES = process.platform === "linux" ? 108 : 104;

/** Runs the command: 1 if something is doubtful. */
export async function inspectSocket(
  name: string,
  { json }: { readonly json?: boolean },
): Promise<ExitCode> {
  if (name.startsWith("@") && Buffer.byteLength(name) > MAX_NAME_BYTES) {
    throw new UsageError(`An abstract name has at most ${MAX_NAME_BYTES - 1} bytes after the @`);
  }
  const path = name.startsWith("@") ? `\0${name.slice(1)}` : resolve(name);
  using look = new Look(path);
  await look.run();
  if (json) printJson(look.report());
  else look.print();
  return look.report().doubts.length === 0 ? 0 : 1;
}

class Look {
  readonly #path: string;
  readonly #doubts: Remark[] = [];
  readonly #notes: Remark[] = [];
  #file: BigIntStats | undefined;
  #folders: readonly FileReport[] = [];
  #way: readonly StepReport[] = [];
  #server: Peer | undefined;
  #holders: readonly Peer[] = [];
  #clients: readonly Peer[] = [];
  /** `undefined` where the kernel's list of sockets does not have this one. */
  #connections: number | undefined;
  /** Connections of clients in other network namespaces, of those that we may see. */
  #elsewhere = 0;
  /** Connections of processes that we may not see. */
  #unseen = 0;
  #socket: Socket | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  async run(): Promise<void> {
    if (!this.#path.startsWith("\0")) {
      this.#file = fileAt(this.#path);
      if (this.#file.isSymbolicLink()) {
        this.#doubt("link", "The path is a symbolic link: whoever owns it can point it elsewhere");
        this.#file = statSync(this.#path, { bigint: true });
      }
      if (!this.#file.isSocket()) throw noSocket(this.#path, this.#file);
      this.#folders = foldersOf(dirname(realpathSync(this.#path)));
      const isListed = ({ path }: FileReport) => this.#folders.some((each) => each.path === path);
      this.#way = wayTo(this.#path).filter((step) => !isListed(step));
    }
    const socket = await reach(this.#path);
    let isDead = false;
    if (typeof socket === "string") isDead = this.#judgeAnswer(socket);
    else {
      this.#socket = socket;
      this.#server = identify(socket, { pin: true });
    }
    if (this.#file !== undefined) this.#lookBehind(this.#file, isDead);
    this.#judge();
  }

  #lookBehind(file: BigIntStats, isDead: boolean): void {
    try {
      const { listeners, connections } = socketsAt(file);
      if (listeners.length === 0 && !isDead) {
        const message = "Which processes hold the socket and who is connected cannot be " +
          "determined: the kernel lists no listener for this file. The server may be in another " +
          "network namespace (run ucred in it, by nsenter), or the file system reports another " +
          "device than the kernel (overlayfs)";
        return this.#doubt("unlisted", message);
      }
      const clients = connections.map(({ client }) => client);
      const holders = holdersOf([...listeners, ...clients]);
      // Our own is among them once the server has accepted it.
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
      this.#doubt("unlisted", `Who is connected cannot be determined: ${error.message}`);
    }
  }

  /** @returns Whether no server has the socket any more. */
  #judgeAnswer(code: string): boolean {
    const isBusy = code === "EAGAIN" || (code === "ECONNREFUSED" && isBound(this.#path) === true);
    if (code === "ECONNREFUSED" && !isBusy && this.#file === undefined) {
      const hint = "`ss -xl` lists the names at which somebody does";
      throw new UsageError(`Nobody listens at @${this.#path.slice(1)}; ${hint}`);
    }
    if (isBusy) {
      const message = "It takes no connection now: too many wait already, or it takes no streams";
      this.#doubt("busy", message);
    } else if (code === "ECONNREFUSED") {
      this.#doubt("dead", "Nobody answers: the server has ended and left its socket behind");
    } else {
      const message = {
        EACCES: "You may not connect, so who listens cannot be told; root can",
        EPROTOTYPE: "It takes datagrams or packets, not streams: who serves it cannot be told",
      }[code] ?? `Whether a server answers cannot be told: ${code}`;
      this.#doubt("unreachable", message);
    }
    return code === "ECONNREFUSED" && !isBusy;
  }

  #judge(): void {
    this.#judgeFile();
    this.#judgeServer();
  }

  #judgeFile(): void {
    if (this.#file === undefined) {
      const message = "An abstract name has no mode: every process of the network namespace, " +
        "containers that share it included, can connect, and can take the name when it is free";
      return this.#doubt("abstract", message);
    }
    const own = this.#server?.uid ?? ownUid();
    const isServers = (owner: number) => owner === 0 || owner === own;
    const folders = this.#folders.map((folder) => ({ ...folder, isLink: false }));
    for (const { path, uid, mode, isLink } of [...folders, ...this.#way]) {
      const access = isLink ? 0 : parseInt(mode, 8); // a link's is 0777, and means nothing
      const why = unsafeFolderReason({ uid, mode: access }, isServers);
      if (why === undefined) continue;
      const what = isLink ? "link" : "folder";
      this.#doubt(what, `The ${what} ${path} ${why}: they can put another socket there`);
    }
    const folder = this.#folders[0];
    if (folder !== undefined && isSticky({ uid: 0, mode: parseInt(folder.mode, 8) })) {
      const message = `In ${folder.path} everybody can make files: while the server is down, ` +
        "another one can take its path";
      this.#doubt("sticky", message);
    }
    const mode = Number(this.#file.mode);
    if ((mode & 0o002) !== 0 && this.#folders.every(({ mode }) => (parseInt(mode, 8) & 1) !== 0)) {
      const message = "Every user can connect: the server has to check its peers itself, " +
        "as `ucred guard` does";
      this.#doubt("everyone", message);
    }
  }

  #judgeServer(): void {
    const server = this.#server;
    if (server === undefined) return;
    if (this.#file !== undefined && ![0n, BigInt(server.uid)].includes(this.#file.uid)) {
      const message = `The socket belongs to uid ${this.#file.uid}, who can replace it, ` +
        `and the server is uid ${server.uid}`;
      this.#doubt("owner", message);
    }
    if (server.ambiguous.length > 0) {
      this.#doubt("ambiguous", "The server is outside our user namespace: its ids prove nothing");
    }
    const { namespaces, container } = server.process.facts;
    if (server.pid === 1) {
      this.#note("activated", "The service manager listens, and hands the socket to the server");
    } else if (server.alive === false) {
      this.#doubt("handed", "The process that called listen(2) has ended; others hold its socket");
    } else if (
      this.#holders.length > 0 && !this.#holders.some(({ pid }) => pid === server.pid)
    ) {
      const message = "The process that called listen(2) is none of those that hold the socket: " +
        "it was handed on";
      this.#doubt("handed", message);
    }
    if (container.state === "known") {
      this.#note("container", `The server runs in container ${container.value.slice(0, 12)}`);
    } else if (namespaces.state === "known" && namespaces.value.user?.ours === false) {
      this.#note("namespace", "The server runs in another user namespace");
    }
  }

  #doubt(kind: string, message: string): void {
    this.#doubts.push({ kind, message });
  }

  #note(kind: string, message: string): void {
    this.#notes.push({ kind, message });
  }

  report(): SocketReport {
    const isListed = this.#connections !== undefined;
    return {
      path: this.#path.replace(/^\0/, "@"),
      file: this.#file && fileReport(this.#path, this.#file),
      folders: this.#folders,
      way: this.#way,
      server: this.#server && summaryOf(this.#server),
      holders: isListed ? this.#holders.map(summaryOf) : null,
      connections: this.#connections ?? null,
      connectionsElsewhere: isListed ? this.#elsewhere : null,
      clients: isListed ? this.#clients.map(summaryOf) : null,
      doubts: this.#doubts,
      notes: this.#notes,
    };
  }

  print(): void {
    const { file, folders, way } = this.report();
    print(paint("bold", printable(this.#path.replace(/^\0/, "@"))));
    if (file !== undefined) {
      line("socket", fileText(file));
      line("may connect", whoMayConnect(file, folders));
    } else line("may connect", "every process of this network namespace");
    for (const [at, folder] of folders.entries()) {
      line(at === 0 ? "folders" : "", `${fileText(folder)}  ${printable(folder.path)}`);
    }
    for (const [at, step] of way.entries()) {
      const text = `${step.isLink ? "link" : step.mode} ${ownerText(step)}`;
      line(at === 0 ? "through" : "", `${text}  ${printable(step.path)}`);
    }
    line("listens", this.#server === undefined ? "?" : peerText(this.#server));
    for (const holder of this.#holders) {
      if (holder.pid !== this.#server?.pid) line("held by", peerText(holder));
    }
    this.#printClients();
    for (const { message } of this.#notes) line("note", printable(message));
    if (this.#doubts.length === 0) line("doubtful", "nothing");
    for (const { message } of this.#doubts) line("doubtful", printable(message), "yellow");
  }

  #printClients(): void {
    if (this.#file === undefined) {
      return line("connected", "cannot be determined: only sockets with a file are listed by it");
    }
    if (this.#connections === undefined) return line("connected", "cannot be determined");
    const more = this.#elsewhere === 0 ? "" : `, ${this.#elsewhere} from other network namespaces`;
    if (this.#connections === 0) return line("connected", `none in this network namespace${more}`);
    const who = this.#unseen === 0 ? "" : `, ${this.#unseen} of whom only root can see`;
    line("connected", `${this.#connections}${process.geteuid?.() === 0 ? "" : who}${more}`);
    for (const text of crowdTexts(this.#clients)) line("", text);
  }

  [Symbol.dispose](): void {
    this.#socket?.destroy();
    for (const peer of [this.#server, ...this.#holders, ...this.#clients]) peer?.close();
  }
}

/** A line, or on a terminal several, with a title before them. */
function line(title: string, text: string, style?: "yellow"): void {
  const lines = wrap(text, width() - 14);
  for (const [at, part] of lines.entries()) {
    const shown = style === undefined ? part : paint(style, part);
    print(`  ${(at === 0 ? title : "").padEnd(11)} ${shown}`.trimEnd());
  }
}

/** The file; if there is none, an error that tells what is there. */
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
        ? `There is no ${path}. ${socketsIn(folder)}`
        : `There is no ${path}: there is no folder ${missing}`,
    );
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true ||
    path === dirname(path);
}

function noSocket(path: string, file: BigIntStats): UsageError {
  if (file.isDirectory()) return new UsageError(`${path} is a folder. ${socketsIn(path)}`);
  return new UsageError(`${path} is no socket. ${socketsIn(dirname(path))}`);
}

/** So many names are shown. */
const MAX_NAMES_SHOWN = 8;

function socketsIn(folder: string): string {
  let names: readonly string[];
  try {
    // Not by its entries' types: in Deno none is a socket.
    const isSocket = (name: string) =>
      lstatSync(join(folder, name), { throwIfNoEntry: false })?.isSocket();
    names = readdirSync(folder).filter(isSocket).sort();
  } catch {
    return `Which sockets are in ${folder} cannot be told`;
  }
  if (names.length === 0) return `No sockets are in ${folder}`;
  const more = names.length > MAX_NAMES_SHOWN ? `, and ${names.length - MAX_NAMES_SHOWN} more` : "";
  return `Sockets in ${folder}: ${names.slice(0, MAX_NAMES_SHOWN).join(", ")}${more}`;
}

/** Whom the modes of the file and of its folders let connect. */
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
  return `${who.join(", ")}; of these whoever may enter ${paths}`;
}

/** A connection, or the code of the error. */
function reach(path: string): Promise<Socket | string> {
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

/** As many links as Linux follows. */
const MAX_SYMLINKS = 40;

/** Each folder and link that the kernel goes through on the way to a file, once. */
function wayTo(path: string): readonly StepReport[] {
  const steps = new Map<string, StepReport>();
  const see = (at: string): BigIntStats => {
    const found = lstatSync(at, { bigint: true });
    const isLink = found.isSymbolicLink();
    if (isLink || found.isDirectory()) steps.set(at, { ...fileReport(at, found), isLink });
    return found;
  };
  const namesIn = (path: string) => path.split("/").filter((name) => name !== "" && name !== ".");
  const names = namesIn(path).toReversed();
  let folder = "/";
  see(folder);
  for (let links = 0; names.length > 0 && links <= MAX_SYMLINKS;) {
    const name = names.pop()!;
    const at = name === ".." ? dirname(folder) : join(folder, name);
    if (see(at).isSymbolicLink()) {
      links++;
      const target = readlinkSync(at);
      if (target.startsWith("/")) folder = "/";
      names.push(...namesIn(target).toReversed());
    } else folder = at;
  }
  return [...steps.values()];
}

function fileReport(path: string, { uid, gid, mode }: BigIntStats): FileReport {
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
