/** Docker mode with dockerode, which speaks differently from Docker's own client. */

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { needs, until } from "../support/suite.ts";
import { DockerGuard, testDocker } from "../support/docker_users.ts";
import { packagesOf } from "../support/packages.ts";

const packages = packagesOf("tests/packages");

/** The part of dockerode that the test uses. */
interface Dockerode {
  listContainers(options: object): Promise<{ Names: string[] }[]>;
  createContainer(options: object): Promise<Container>;
  getContainer(id: string): Container;
  getEvents(): Promise<NodeJS.ReadableStream & { destroy(): void }>;
}

interface Container {
  readonly id: string;
  start(): Promise<unknown>;
  stop(): Promise<unknown>;
  remove(): Promise<unknown>;
  inspect(): Promise<{ Name: string }>;
  attach(options: object): Promise<NodeJS.ReadWriteStream>;
  exec(options: object): Promise<{ start(options: object): Promise<NodeJS.ReadWriteStream> }>;
}

async function textOf(stream: NodeJS.ReadableStream): Promise<string> {
  let text = "";
  for await (const part of stream) text += part;
  return text;
}

testDocker(
  "guard serves dockerode: lists, events, an exec and an attachment",
  async () => {
    const folder = new URL("../packages/package.json", import.meta.url);
    const Client = createRequire(folder)("dockerode") as new (options: object) => Dockerode;
    const guard = await DockerGuard.start();
    const client = new Client({ socketPath: guard.path });
    const events = await client.getEvents();
    let seen = "";
    events.on("data", (bytes) => seen += bytes);
    const container = await client.createContainer({ name: "web", Image: "busybox", Cmd: ["x"] });
    await container.start();
    assert.deepEqual((await client.listContainers({ all: true })).map(({ Names }) => Names), [[
      "/web",
    ]]);
    assert.equal((await container.inspect()).Name, "/web");
    const exec = await container.exec({ Cmd: ["cat"], AttachStdin: true, AttachStdout: true });
    for (
      const stream of [
        await exec.start({ hijack: true, stdin: true }),
        await container.attach({ stream: true, hijack: true, stdin: true, stdout: true }),
      ]
    ) {
      stream.end("hello");
      assert.equal(await textOf(stream), "input:hello");
    }
    guard.engine.emit("start", guard.engine.containers.get(container.id)!);
    await until(() => seen.includes('"Action":"start"'));
    events.destroy();
    await container.stop();
    await container.remove();
    await assert.rejects(client.getContainer("web").inspect(), /No such container: web/);
  },
  packages,
  needs.oneRuntime,
);
