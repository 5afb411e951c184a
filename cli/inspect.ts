/** `ucred inspect`: who serves a socket, who may connect, who is connected, and what is doubtful. */

import { type BigIntStats, lstatSync, realpathSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import process from "node:process";
import { dirname, resolve } from "node:path";
import { UcredError } from "../core/errors.ts";
import { isSticky, whoElseReplaces } from "../core/ownership.ts";
import type { Peer, PeerJSON } from "../core/peer.ts";
import { accountName, ownUid } from "../identity/accounts.ts";
import { identify } from "../identity/identify.ts";
import { holdersOf, peerOfPid, socketsAt } from "../identity/unix_sockets.ts";
import { type ExitCode, paint, print, printable, printJson, UsageError } from "./output.ts";
import { peerText } from "./peers.ts";

/** A file or folder, and who may write to it. */
interface FileReport {
  readonly path: string;
  readonly uid: number;
  readonly gid: number;
  /** Octal, as chmod(1) takes it. */
  readonly mode: string;
}

/** Something doubtful. */
interface Doubt {
  readonly kind: string;
  readonly message: string;
}

/** What is known of a socket. */
interface SocketReport {
  readonly path: string;
  /** `undefined` for an abstract name, to which everybody can connect. */
  readonly file: FileReport | undefined;
  /** From the socket's folder up to "/". */
  readonly folders: readonly FileReport[];
  /** Who called listen(2); `undefined` if nobody answers. */
  readonly server: PeerJSON | undefined;
  /** Processes that hold the listening socket now, as far as we may look. */
  readonly holders: readonly PeerJSON[];
  /** How many are connected. */
  readonly connections: number;
  /** Who is, as far as we may look. */
  readonly clients: readonly PeerJSON[];
  readonly doubts: readonly Doubt[];
}

/** Runs the command. */
export async function inspect(
  name: string,
  { json }: { readonly json?: boolean },
): Promise<ExitCode> {
  const path = name.startsWith("@") ? `\0${name.slice(1)}` : resolve(name);
  using look = new Look(path);
  await look.run();
  if (json) printJson(look.report());
  else look.print();
  return 0;
}

class Look {
  readonly #path: string;
  readonly #doubts: Doubt[] = [];
  #file: BigIntStats | undefined;
  #folders: readonly FileReport[] = [];
  #server: Peer | undefined;
  #holders: readonly Peer[] = [];
  #clients: readonly Peer[] = [];
  #connections = 0;
  #socket: Socket | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  async run(): Promise<void> {
    if (!this.#path.startsWith("\0")) {
      this.#file = lstatSync(this.#path, { bigint: true });
      if (this.#file.isSymbolicLink()) {
        this.#doubt("link", "The path is a symbolic link: whoever owns it can point it elsewhere");
        this.#file = statSync(this.#path, { bigint: true });
      }
      if (!this.#file.isSocket()) throw new UsageError(`${this.#path} is no socket`);
      this.#folders = foldersOf(realpathSync(dirname(this.#path)));
    }
    const socket = await reach(this.#path);
    if (typeof socket === "string") this.#doubtAnswer(socket);
    else {
      this.#socket = socket;
      this.#server = identify(socket, { pin: true });
    }
    if (this.#file !== undefined) this.#lookBehind(this.#file);
    this.#judge();
  }

  /** Our own connection is among those that are open. */
  #lookBehind(file: BigIntStats): void {
    try {
      const { listeners, connections } = socketsAt(file);
      const clients = connections.map(({ client }) => client);
      const holders = holdersOf([...listeners, ...clients]);
      const pids = (
        sockets: readonly number[],
      ) => [...new Set(sockets.flatMap((socket) => holders.get(socket) ?? []))];
      this.#holders = pids(listeners).flatMap(peerOrNone);
      const others = pids(clients).filter((pid) => pid !== process.pid);
      this.#clients = others.flatMap(peerOrNone);
      this.#connections = clients.length - Number(this.#socket !== undefined);
    } catch (error) {
      if (!(error instanceof UcredError)) throw error;
      this.#doubt("unlisted", `Who is connected cannot be told: ${error.message}`);
    }
  }

  #doubtAnswer(code: string): void {
    if (code === "ECONNREFUSED") {
      this.#doubt("dead", "Nobody answers: the server has ended and left its socket behind");
    } else this.#doubt("unreachable", `Whether a server answers cannot be told: ${code}`);
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
    for (const { path, uid, mode } of this.#folders) {
      const why = whoElseReplaces({ uid, mode: parseInt(mode, 8) }, this.#server?.uid ?? ownUid());
      if (why === undefined) continue;
      this.#doubt("folder", `The folder ${path} ${why}: they can put another socket there`);
    }
    const folder = this.#folders[0];
    if (folder !== undefined && isSticky({ uid: 0, mode: parseInt(folder.mode, 8) })) {
      const message = `In ${folder.path} everybody can make files: while the server is down, ` +
        "another one can take its path";
      this.#doubt("sticky", message);
    }
    const mode = Number(this.#file.mode);
    if ((mode & 0o002) !== 0 && this.#folders.every(({ mode }) => (parseInt(mode, 8) & 1) !== 0)) {
      const message = "Every user can connect: the server has to check who does " +
        "(if it does not, put `ucred guard` in front of it)";
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
    if (server.alive === false) {
      this.#doubt("handed", "The process that called listen(2) has ended; others hold its socket");
    } else if (
      this.#holders.length > 0 && !this.#holders.some(({ pid }) => pid === server.pid)
    ) {
      const message = "The process that called listen(2) is none of those that hold the socket: " +
        "it was handed on, as with socket activation";
      this.#doubt("handed", message);
    }
    const { namespaces, container } = server.process.facts;
    if (container.state === "known") {
      this.#doubt("container", `The server runs in container ${container.value.slice(0, 12)}`);
    } else if (namespaces.state === "known" && namespaces.value.user?.ours === false) {
      this.#doubt("namespace", "The server runs in another user namespace");
    }
  }

  #doubt(kind: string, message: string): void {
    this.#doubts.push({ kind, message });
  }

  report(): SocketReport {
    return {
      path: this.#path.replace(/^\0/, "@"),
      file: this.#file && fileReport(this.#path, this.#file),
      folders: this.#folders,
      server: this.#server?.toJSON(),
      holders: this.#holders.map((peer) => peer.toJSON()),
      connections: this.#connections,
      clients: this.#clients.map((peer) => peer.toJSON()),
      doubts: this.#doubts,
    };
  }

  print(): void {
    const { file, folders } = this.report();
    const line = (title: string, text: string) => print(`  ${title.padEnd(11)} ${text}`);
    print(paint("bold", printable(this.#path.replace(/^\0/, "@"))));
    if (file !== undefined) line("socket", fileText(file));
    for (const folder of folders) line("folder", `${printable(folder.path)}: ${fileText(folder)}`);
    line("listens", this.#server === undefined ? "nobody answers" : peerText(this.#server));
    for (const holder of this.#holders) {
      if (holder.pid !== this.#server?.pid) line("held by", peerText(holder));
    }
    const seen = this.#clients.length;
    line("connected", this.#connections === 0 ? "nobody" : `${this.#connections}`);
    for (const client of this.#clients) line("", peerText(client));
    if (this.#connections > 0 && seen === 0) line("", "(root can see by whom)");
    if (this.#doubts.length === 0) return line("doubtful", "nothing");
    for (const [at, { message }] of this.#doubts.entries()) {
      line(at === 0 ? "doubtful" : "", paint("yellow", printable(message)));
    }
  }

  [Symbol.dispose](): void {
    this.#socket?.destroy();
    for (const peer of [this.#server, ...this.#holders, ...this.#clients]) peer?.close();
  }
}

/** A connection, or the code of the error. */
function reach(path: string): Promise<Socket | string> {
  return new Promise((resolve) => {
    const socket = connect(path);
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

function foldersOf(path: string): readonly FileReport[] {
  const folders: FileReport[] = [];
  for (let at = path;; at = dirname(at)) {
    folders.push(fileReport(at, statSync(at, { bigint: true })));
    if (at === dirname(at)) return folders;
  }
}

function fileReport(path: string, { uid, gid, mode }: BigIntStats): FileReport {
  const octal = (Number(mode) & 0o7777).toString(8).padStart(4, "0");
  return { path, uid: Number(uid), gid: Number(gid), mode: octal };
}

function fileText({ uid, gid, mode }: FileReport): string {
  const name = (kind: "user" | "group", id: number) => printable(accountName(kind, id) ?? `${id}`);
  return `${mode} ${name("user", uid)} ${name("group", gid)}`;
}
