/** An engine that answers as dockerd does, and records what it receives. */

import { Behind, type End, type Message } from "./guard.ts";

/** A container of the engine. */
export interface FakeContainer {
  readonly id: string;
  name: string;
  readonly image: string;
  readonly labels: Record<string, string>;
  readonly config: Record<string, unknown>;
  /** Its address, which no other container has. */
  readonly address: string;
  isRunning: boolean;
}

/** A volume or network of the engine. */
export interface FakeObject {
  readonly id: string;
  readonly name: string;
  readonly labels: Record<string, string>;
}

/** A request as it was received. */
export interface Received {
  /** Method and target. */
  readonly line: string;
  readonly body: string;
  readonly message: Message;
}

interface FakeAnswer {
  readonly status?: string;
  readonly body: string;
  readonly type?: string;
}

const REASONS: { readonly [status: number]: string } = {
  200: "OK",
  201: "Created",
  204: "No Content",
  404: "Not Found",
  409: "Conflict",
};

const json = (value: unknown, status = 200): FakeAnswer => ({
  ...{ body: `${JSON.stringify(value)}\n`, status: `${status} ${REASONS[status]}` },
});
const error = (status: number, message: string): FakeAnswer => json({ message }, status);

/** The image of containers, unless a test makes another one. */
export const IMAGE = `sha256:${"1".repeat(64)}`;

let ids = 0;

/** Returns a full id that differs from the others in its first characters. */
function freshId(): string {
  return (++ids * 0x9e3779b1 >>> 0).toString(16).padStart(8, "0") + "0123456789abcdef".repeat(3) +
    ids.toString(16).padStart(8, "0");
}

export class FakeEngine {
  readonly path: string;
  /** All requests, those of the guard itself included. */
  readonly received: Received[] = [];
  readonly containers = new Map<string, FakeContainer>();
  readonly volumes = new Map<string, FakeObject>();
  readonly networks = new Map<string, FakeObject>();
  readonly execs = new Map<string, { container: string; config: Record<string, unknown> }>();
  /** Image id → its labels. */
  readonly images = new Map<string, Record<string, string>>([[IMAGE, {}]]);
  /** Alias that a legacy link has given a container → the container's id. */
  readonly aliases = new Map<string, string>();
  /** Connections that wait for events. */
  readonly listeners = new Set<End>();
  /** Replaces the answer to a request, by the start of its line. */
  readonly answers = new Map<string, string>();
  /** Runs before each answer. */
  before: (line: string) => unknown = () => {};

  private constructor(path: string) {
    this.path = path;
  }

  static async start(): Promise<FakeEngine> {
    const behind = await Behind.start((end) => engine.#serve(end));
    const engine = new FakeEngine(behind.path);
    return engine;
  }

  /** Creates a container past the guard. */
  add(name: string, labels: Record<string, string> = {}, config: object = {}): FakeContainer {
    const id = freshId();
    const address = `10.9.${100 + Math.floor(ids / 100)}.${100 + ids % 100}`;
    const container: FakeContainer = {
      ...{ id, name, labels, image: IMAGE, address, isRunning: true },
      config: { ...config },
    };
    this.containers.set(container.id, container);
    return container;
  }

  /** The requests whose line matches. */
  heard(pattern: RegExp): readonly Received[] {
    return this.received.filter(({ line }) => pattern.test(line));
  }

  /** Sends an event to all clients that wait for events. */
  emit(action: string, { id, name, labels, image }: FakeContainer): void {
    const Actor = { ID: id, Attributes: { ...labels, name, image } };
    const event = { status: action, id, Type: "container", Action: action, Actor, time: 1 };
    this.emitRaw(JSON.stringify(event));
  }

  emitRaw(line: string): void {
    for (const end of this.listeners) {
      end.send(`${(line.length + 1).toString(16)}\r\n${line}\n\r\n`);
    }
  }

  async #serve(end: End): Promise<void> {
    while (true) {
      const message = await end.message();
      const [method = "", target = ""] = message.first.split(" ");
      const line = `${method} ${target}`;
      this.received.push({ line, body: message.body, message });
      await this.before(line);
      const canned = [...this.answers].find(([start]) => line.startsWith(start))?.[1];
      if (canned !== undefined) {
        end.send(canned);
        continue;
      }
      const url = new URL(target.replace(/^\/v1\.\d+/, ""), "http://docker");
      if (url.pathname === "/events") {
        end.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n");
        end.send("Transfer-Encoding: chunked\r\n\r\n");
        this.listeners.add(end);
        end.socket.once("close", () => this.listeners.delete(end));
        continue;
      }
      if (/\/(attach|start)$/.test(url.pathname) && message.header("upgrade") !== "") {
        return await this.#hijack(end);
      }
      const { status = "200 OK", type = "application/json", body } = this.#answer(
        method,
        url,
        message,
      );
      const fields = "Api-Version: 1.48\r\nDocker-Experimental: false\r\nOstype: linux\r\n" +
        "Server: Docker/99.9.9 (linux)\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
      end.send(`HTTP/1.1 ${status}\r\n${fields}`);
      if (status.startsWith("204")) end.send("\r\n");
      else {
        const bytes = Buffer.from(body);
        end.send(`Content-Type: ${type}\r\nContent-Length: ${bytes.length}\r\n\r\n`);
        end.send(method === "HEAD" ? "" : bytes.toString("latin1"));
      }
    }
  }

  /** Sends back what it receives, after the client's half-close. */
  async #hijack(end: End): Promise<void> {
    end.send(
      "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n" +
        "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
    );
    end.send(`input:${await end.rest()}`).end();
  }

  /** A container by its id, name, alias, or a prefix of its id. */
  #find(ref: string): FakeContainer | undefined {
    const name = ref.replace(/^\//, "");
    const byName = [...this.containers.values()].find((each) => each.name === name);
    const alias = this.aliases.get(name);
    return this.containers.get(ref) ?? byName ??
      (alias === undefined ? undefined : this.containers.get(alias)) ??
      [...this.containers.values()].find(({ id }) => id.startsWith(ref));
  }

  /** The answer if another container has a name. */
  #conflict(name: string): FakeAnswer | undefined {
    const taken = [...this.containers.values()].find((each) => each.name === name);
    if (taken === undefined) return undefined;
    const by = `is already in use by container "${taken.id}"`;
    return error(409, `Conflict. The container name "/${name}" ${by}.`);
  }

  #inspected({ id, name, image, labels, config, address, isRunning }: FakeContainer): object {
    const HostConfig = config["HostConfig"] as Record<string, unknown> ?? {};
    const binds = (HostConfig["Binds"] as string[] ?? []).filter((bind) => bind.startsWith("/"));
    return {
      ...{ Id: id, Name: `/${name}`, Image: image, State: { Running: isRunning } },
      Config: { Image: "busybox", Labels: labels, User: config["User"] ?? "", Env: ["SECRET=1"] },
      HostConfig: { NetworkMode: "bridge", Privileged: false, ...HostConfig },
      Mounts: binds.map((bind) => {
        const [Source, Destination, mode] = bind.split(":");
        return { Type: "bind", Source, Destination, RW: mode !== "ro" };
      }),
      NetworkSettings: { IPAddress: address },
    };
  }

  #listed({ id, name, image, labels }: FakeContainer): object {
    return {
      ...{ Id: id, Names: [`/${name}`], Image: "busybox", ImageID: image, Labels: labels },
      ...{ Command: "sleep", Created: 1, State: "running", Status: "Up", Ports: [] },
    };
  }

  #answer(method: string, url: URL, { body }: Message): FakeAnswer {
    const line = `${method} ${url.pathname}`;
    const query = url.searchParams;
    const input = body.startsWith("{") ? JSON.parse(body) : {};
    const labels = (JSON.parse(query.get("filters") || "{}").label ?? []) as string[];
    const hasLabels = (object: { labels: Record<string, string> }) =>
      labels.every((label) => {
        const [name = "", value] = label.split("=");
        return name in object.labels && (value === undefined || object.labels[name] === value);
      });
    const named = (map: Map<string, FakeObject>, ref: string) =>
      [...map.values()].find(({ id, name }) => ref === id || ref === name);
    const object = ({ id, name, labels }: FakeObject) => ({
      ...{ Id: id, Name: name, Driver: "local", Labels: labels, Options: null },
    });
    switch (line) {
      case "HEAD /_ping":
      case "GET /_ping":
        return { type: "text/plain", body: "OK" };
      case "GET /version":
        return json({ Version: "99.9.9", ApiVersion: "1.48", MinAPIVersion: "1.24" });
      case "GET /info":
        return json({ ServerVersion: "99.9.9" });
      case "GET /containers/json":
        return json(
          [...this.containers.values()].filter(hasLabels).map((each) => this.#listed(each)),
        );
      case "GET /system/df":
        return json({
          ...{ LayersSize: 1, Images: [{ Id: IMAGE, RepoTags: ["victim:latest"] }] },
          Containers: [...this.containers.values()].map((each) => this.#listed(each)),
          Volumes: [...this.volumes.values()].map(object),
          BuildCache: [{ ID: "cache", Description: "RUN victim" }],
        });
      case "POST /containers/create": {
        const name = query.get("name") ?? `name${ids}`;
        const taken = this.#conflict(name);
        if (taken !== undefined) return taken;
        const ofImage = this.images.get(IMAGE);
        const added = this.add(name, { ...ofImage, ...input.Labels }, input);
        return json({ Id: added.id, Warnings: [] }, 201);
      }
      case "POST /volumes/create": {
        const name = input.Name || freshId();
        const found = this.volumes.get(name) ?? { id: name, name, labels: input.Labels ?? {} };
        this.volumes.set(name, found);
        return json(object(found), 201);
      }
      case "POST /networks/create": {
        const id = freshId();
        this.networks.set(id, { id, name: input.Name, labels: input.Labels ?? {} });
        return json({ Id: id, Warning: "" }, 201);
      }
      case "GET /volumes":
        return json({ Volumes: [...this.volumes.values()].filter(hasLabels).map(object) });
      case "GET /networks":
        return json([...this.networks.values()].filter(hasLabels).map(object));
      case "POST /volumes/prune":
      case "POST /networks/prune":
      case "POST /images/prune":
        return json({ SpaceReclaimed: 0 });
      case "POST /containers/prune":
        return json({ ContainersDeleted: [...this.containers.keys()], SpaceReclaimed: 0 });
      case "POST /commit":
        return json({ Id: IMAGE }, 201);
    }
    const path = decodeURIComponent(url.pathname);
    const image = /^\/images\/(.+)\/json$/.exec(path)?.[1];
    if (image !== undefined) {
      const labels = this.images.get(image);
      return labels === undefined
        ? error(404, `No such image: ${image}`)
        : json({ Id: image, Container: "c".repeat(64), Config: { Labels: labels, Hostname: "h" } });
    }
    const exec = /^\/exec\/([^/]+)\/(json|start|resize)$/.exec(path);
    if (exec !== null) {
      const [, id = "", verb] = exec;
      const found = this.execs.get(id);
      if (found === undefined) return error(404, `No such exec instance: ${id}`);
      const { Privileged: privileged = false, User: user = "", Cmd = [] } = found.config;
      const [entrypoint, ...args] = Cmd as string[];
      const ProcessConfig = { privileged, user, entrypoint, arguments: args };
      return verb === "json"
        ? json({ ID: id, ContainerID: found.container, Running: true, ProcessConfig })
        : { body: "" };
    }
    const volume = /^\/volumes\/([^/]+)$/.exec(path)?.[1];
    if (volume !== undefined) {
      const found = this.volumes.get(volume);
      if (found === undefined) return error(404, `get ${volume}: no such volume`);
      if (method === "GET") return json(object(found));
      this.volumes.delete(volume);
      return { status: "204 No Content", body: "" };
    }
    const network = /^\/networks\/([^/]+?)(\/connect|\/disconnect)?$/.exec(path);
    if (network !== null) {
      const found = named(this.networks, network[1]!);
      if (found === undefined) return error(404, `network ${network[1]} not found`);
      if (method === "DELETE") {
        this.networks.delete(found.id);
        return { status: "204 No Content", body: "" };
      }
      const Containers = Object.fromEntries(
        [...this.containers.values()].map(({ id, name, address }) => [id, {
          ...{ Name: name, IPv4Address: `${address}/24` },
        }]),
      );
      return network[2] === undefined ? json({ ...object(found), Containers }) : { body: "" };
    }
    const act =
      /^\/containers\/(.+?)(?:\/(json|start|stop|kill|rename|exec|logs|archive|wait|top|stats|update|resize|export|restart|pause|changes))?$/
        .exec(path);
    if (act === null) return error(404, "page not found");
    const [, ref = "", verb] = act;
    const found = this.#find(ref);
    if (found === undefined) return error(404, `No such container: ${ref}`);
    switch (verb) {
      case "json":
        return json(this.#inspected(found));
      case "exec": {
        const id = freshId();
        this.execs.set(id, { container: found.id, config: input });
        return json({ Id: id }, 201);
      }
      case "rename": {
        const name = query.get("name")!;
        const taken = this.#conflict(name);
        if (taken !== undefined) return taken;
        found.name = name;
        return { status: "204 No Content", body: "" };
      }
      case "logs":
        return { type: "application/vnd.docker.raw-stream", body: `logs of ${found.name}\n` };
      case "wait":
        return json({ StatusCode: 0 });
      case "archive":
      case "export":
        return { type: "application/x-tar", body: `files of ${found.name}` };
      case "top":
      case "stats":
      case "changes":
      case "update":
        return json({ of: found.name });
    }
    if (verb === undefined && method === "DELETE") this.containers.delete(found.id);
    return { status: "204 No Content", body: "" };
  }
}
