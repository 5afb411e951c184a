/** A guard in Docker mode in this process, in front of a fake engine, and its clients of several users. */

import { type ChildProcess, spawn } from "node:child_process";
import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import type { GuardOptions, GuardServer } from "../../guard/mod.ts";
import { dockerVocabulary } from "../../interop/docker/vocabulary.ts";
import { parsePolicy } from "../../policy/parse.ts";
import { FakeEngine } from "./fake_engine.ts";
import { End, type Message } from "./guard.ts";
import { guardHere } from "./guard_here.ts";
import { relay } from "./http.ts";
import { endAfterEach, type Need, needs, testWith } from "./suite.ts";

/** Users of the tests. */
export const ALICE = 4101, BOB = 4102, CAROL = 4103, WATCHER = 4104;

/** Root may do everything, users may create contained objects and use their own, and one user may look at all. */
export const POLICY = `
version: 1
about: docker
rules:
  - { name: root, when: { uid: 0 }, allow: full }
  - name: watcher
    when: { uid: ${WATCHER} }
    actions: ["*.list", "*.inspect", "container.logs", system.events]
    allow: true
  - name: users create contained objects
    when: { uid: ${ALICE}-${CAROL} }
    actions: [container.create, volume.create, network.create, build]
    where: { dangers: { empty: true } }
    allow: true
  - name: users act on their own
    when: { uid: ${ALICE}-${CAROL} }
    actions: ["container.*", "exec.*", "volume.*", "network.*"]
    where: { owner: self, dangers: { empty: true } }
    allow: true
  - name: users read
    when: { uid: ${ALICE}-${CAROL} }
    actions: [system.version, system.events, system.df, image.inspect, image.pull]
    allow: true
`;

const children = new Set<ChildProcess>();
endAfterEach(() => {
  for (const child of children) child.kill("SIGKILL");
  children.clear();
});

/** A test with clients of several users. */
export function testDocker(
  name: string,
  run: () => void | Promise<void>,
  ...more: readonly Need[]
): void {
  testWith([needs.linux, needs.cc, needs.root, needs.native, ...more], name, run);
}

/** A guard in Docker mode, and its engine. */
export class DockerGuard {
  readonly engine: FakeEngine;
  readonly path: string;
  readonly server: GuardServer;
  readonly reported: readonly string[];

  private constructor(engine: FakeEngine, path: string, server: GuardServer, reported: string[]) {
    this.engine = engine;
    this.path = path;
    this.server = server;
    this.reported = reported;
  }

  static async start(
    policy: string = POLICY,
    engine?: FakeEngine,
    more: Partial<GuardOptions> = {},
  ): Promise<DockerGuard> {
    const fake = engine ?? await FakeEngine.start();
    const reported: string[] = [];
    const { path, guard: server } = await guardHere({
      mode: "docker",
      upstream: fake.path,
      policy: parsePolicy(policy, { vocabularies: [dockerVocabulary] }),
      report: (line) => reported.push(line),
      ...more,
    }, { mode: 0o666 });
    return new DockerGuard(fake, path, server, reported);
  }

  /** Opens a connection as a user. */
  as(uid: number): Promise<DockerClient> {
    return clientOf(this.path, uid);
  }
}

/** Opens a connection to a guard as a user. */
export async function clientOf(path: string, uid: number): Promise<DockerClient> {
  if (uid === 0) return new DockerClient(await End.open(path));
  const child = spawn(relay, ["--uid", String(uid), path], { stdio: ["pipe", "pipe", "inherit"] });
  children.add(child);
  return new DockerClient(new End(socketOf(child)));
}

/** The input and output of a process, as a socket. */
function socketOf(child: ChildProcess): Socket {
  const socket = Object.assign(new EventEmitter(), {
    write: (bytes: Uint8Array) => child.stdin!.write(bytes),
    end: () => child.stdin!.end(),
    destroy: () => child.kill("SIGKILL"),
  });
  child.stdin!.on("error", () => {});
  child.stdout!.on("data", (bytes) => socket.emit("data", bytes))
    .on("end", () => socket.emit("end"));
  child.once("close", () => socket.emit("close"));
  return socket as unknown as Socket;
}

/** A client of a guard. */
export class DockerClient {
  readonly end: End;

  constructor(end: End) {
    this.end = end;
  }

  /** Sends a request, and returns the response. */
  async ask(line: string, body?: unknown, fields = ""): Promise<Message> {
    const [method = "", target = ""] = line.split(" ");
    const text = body === undefined ? "" : typeof body === "string" ? body : JSON.stringify(body);
    const type = body === undefined
      ? ""
      : `Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\n`;
    this.end.send(`${method} ${target} HTTP/1.1\r\nHost: docker\r\n${type}${fields}\r\n`);
    this.end.send(Buffer.from(text).toString("latin1"));
    return await this.end.message(method !== "HEAD");
  }

  /** Sends a request, and returns the status and the message of the response. */
  async status(line: string, body?: unknown, fields = ""): Promise<string> {
    const response = await this.ask(line, body, fields);
    const isJson = response.header("content-type") === "application/json";
    const message = isJson && response.body !== "" ? JSON.parse(response.body).message : undefined;
    return message === undefined ? String(response.status) : `${response.status} ${message}`;
  }

  /** Creates a container, and returns its id. */
  async create(name: string, more: object = {}): Promise<string> {
    const response = await this.ask(`POST /v1.48/containers/create?name=${name}`, {
      ...{ Image: "busybox", ...more },
    });
    if (response.status !== 201) throw new Error(`${response.status} ${response.body}`);
    return JSON.parse(response.body).Id;
  }
}
