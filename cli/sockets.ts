/** `ucred sockets`: lists the listening Unix sockets with their servers, who may connect, and findings. */

import { type BigIntStats, lstatSync, readdirSync } from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import type { Peer } from "../core/peer.ts";
import { displayName } from "../core/socket_name.ts";
import { SOCK } from "../ffi/linux.ts";
import { holdersOf, type ListeningSocket, listeningSockets } from "../system/unix_sockets.ts";
import { columns, type ExitCode, paint, print, printable, printJson } from "./output.ts";
import { crowdTexts, peersOf, type PeerSummary, summaryOf } from "./peers.ts";
import {
  fileFindings,
  type FileReport,
  fileText,
  ownerFindings,
  type Remark,
  type SocketFile,
  socketFile,
  whoMayConnect,
} from "./socket_file.ts";

/** One listening socket, as JSON. */
interface ListedSocket {
  /** The path, or "@name" for an abstract socket. */
  readonly path: string;
  readonly type: "stream" | "seqpacket";
  /** `null` for an abstract socket, and if no file at the path belongs to the socket. */
  readonly file: FileReport | null;
  /** The visible processes that hold the socket. Root sees all processes; other users see their own. */
  readonly holders: readonly PeerSummary[];
  readonly findings: readonly Remark[];
}

/** Runs the command. Exit code 1: there are findings. */
export function listSockets({ json }: { readonly json?: boolean }): ExitCode {
  const listeners = listeningSockets().toSorted((a, b) => a.address < b.address ? -1 : 1);
  const pids = holdersOf(listeners.map(({ inode }) => inode));
  const known = new Map<number, Peer | undefined>();
  try {
    const holdersIn = (inode: number) =>
      (pids.get(inode) ?? []).flatMap((pid) => {
        if (!known.has(pid)) known.set(pid, peersOf([pid])[0]);
        return known.get(pid) ?? [];
      });
    const sockets = listeners.map((listener) =>
      new ListedServer(listener, holdersIn(listener.inode))
    );
    if (json) printJson(sockets.map((socket) => socket.report()));
    else if (sockets.length === 0) print("No Unix socket listens in this network namespace");
    else printTable(sockets);
    return sockets.every(({ findings }) => findings.length === 0) ? 0 : 1;
  } finally {
    for (const peer of known.values()) peer?.close();
  }
}

/** How often `--watch` lists the sockets. */
const WATCH_INTERVAL_MS = 2000;

/** Lists the sockets until SIGINT or SIGTERM. */
export async function watchSockets(options: { readonly json?: boolean }): Promise<ExitCode> {
  const { watch } = await import("./watch.ts");
  return await watch(() => listSockets(options), { intervalMs: WATCH_INTERVAL_MS });
}

function printTable(sockets: readonly ListedServer[]): void {
  const titles = ["SOCKET", "FILE", "MAY CONNECT", "SERVER", "FINDINGS"];
  const rows = [titles.map((title) => paint("bold", title)), ...sockets.map((each) => each.row())];
  for (const line of columns(rows)) print(line);
  const count = sockets.filter(({ findings }) => findings.length > 0).length;
  const plural = sockets.length === 1 ? "socket" : "sockets";
  print("");
  print(`${sockets.length} ${plural}, ${count} with findings. ucred inspect SOCKET explains them`);
}

class ListedServer {
  readonly findings: readonly Remark[];
  readonly #listener: ListeningSocket;
  readonly #holders: readonly Peer[];
  readonly #file: SocketFile | undefined;
  readonly #path: string;

  constructor(listener: ListeningSocket, holders: readonly Peer[]) {
    this.#listener = listener;
    // The service manager keeps the sockets that it passes to servers.
    const servers = holders.filter(({ pid }) => pid !== 1);
    this.#holders = servers.length === 0 ? holders : servers;
    const found = fileOf(listener);
    this.#path = typeof found === "object" ? found.file.path : displayName(listener.address);
    if (typeof found === "string") {
      this.findings = [{ kind: "unreachable", message: found }];
      return;
    }
    this.#file = found;
    const user = this.#holders[0]?.uid ?? found?.file.uid ?? 0;
    const uids = this.#holders.map(({ uid }) => uid);
    const ofOwner = found === undefined ? [] : ownerFindings(found.file, uids);
    this.findings = [...fileFindings(found, user), ...ofOwner];
  }

  report(): ListedSocket {
    return {
      path: this.#path,
      type: this.#listener.type === SOCK.SEQPACKET ? "seqpacket" : "stream",
      file: this.#file?.file ?? null,
      holders: this.#holders.map(summaryOf),
      findings: this.findings,
    };
  }

  row(): readonly string[] {
    const isFound = this.#file !== undefined || this.#listener.isBoundTo === undefined;
    const kinds = [...new Set(this.findings.map(({ kind }) => kind))].join(", ");
    return [
      printable(this.#path),
      this.#file === undefined ? "-" : fileText(this.#file.file),
      isFound ? whoMayConnect(this.#file) : "?",
      this.#holders.length === 0 ? "?" : crowdTexts(this.#holders).join("; "),
      kinds === "" ? "none" : paint("yellow", kinds),
    ];
  }
}

/** The socket's file; `undefined` for an abstract socket. A text explains why no file was found. */
function fileOf({ address, isBoundTo }: ListeningSocket): SocketFile | undefined | string {
  if (isBoundTo === undefined) return undefined;
  if (!isAbsolute(address)) {
    return "The path in bind(2) was relative: the file cannot be determined";
  }
  try {
    for (const path of [address, ...nearby(address)]) {
      const file = statsAt(path);
      if (file?.isSocket() && isBoundTo(file)) return socketFile(path, file);
    }
  } catch (error) {
    if (!(error instanceof Error && "syscall" in error)) throw error;
    return `The file cannot be examined: ${error.message}`;
  }
  return statsAt(address) === undefined
    ? "The path does not exist in this mount namespace: clients cannot connect by it"
    : "The path has another file: clients that connect by it reach another server, or none";
}

/** Paths to which a server may have renamed its socket: files in its folder, and in the folder above. */
function* nearby(address: string): Generator<string, void, void> {
  for (const folder of [dirname(address), dirname(dirname(address))]) {
    try {
      for (const name of readdirSync(folder)) yield join(folder, name);
    } catch {
      // Removed, or not readable.
    }
  }
}

function statsAt(path: string): BigIntStats | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false });
}
