/** The policy for Docker in docs/guard.md: real clients of several users, and an engine that records. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import process from "node:process";
import { need, needs, succeeds } from "../support/suite.ts";
import { FakeDaemon } from "./daemon.ts";
import { Guard, policyFile, testGuard, tool } from "../support/guard.ts";

const document = readFileSync(new URL("../../docs/guard.md", import.meta.url), "utf8");
const [, documented] = /## In front of Docker\n[^]*?```yaml\n([^]*?)```/.exec(document)!;

/** Every Docker client of this machine: Debian's and a newer one may both be there. */
const clients = ["/usr/local/bin/docker", "/usr/bin/docker"].filter((path) => existsSync(path));

const adm = need("a group adm", () => succeeds("getent", "group", "adm"));

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a program as another user. */
async function runAs(groups: string, ...line: readonly string[]): Promise<Ran> {
  const ids = [
    "--reuid=4001",
    "--regid=4001",
    groups === "" ? "--clear-groups" : `--groups=${groups}`,
  ];
  const child = spawn("setpriv", [...ids, ...line], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env["PATH"], HOME: "/nonexistent", DOCKER_CONFIG: "/nonexistent" },
    timeout: 60_000,
  });
  let [out, err] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => out += text);
  child.stderr.setEncoding("utf8").on("data", (text: string) => err += text);
  const [code] = await once(child, "close");
  return { code, out, err };
}

const DENIED = /The policy does not allow it/;

for (const client of clients) {
  testGuard(
    `the Docker policy in the docs allows ${client} what it promises, for each user`,
    async () => {
      const daemon = await FakeDaemon.start();
      const guard = await Guard.start({
        upstream: daemon.path,
        mode: "http",
        policy: policyFile(documented),
      });
      const docker = (groups: string, ...args: string[]) =>
        runAs(groups, client, "-H", `unix://${guard.path}`, ...args);
      const succeedsWith = async (groups: string, pattern: RegExp, ...args: string[]) => {
        const { code, out, err } = await docker(groups, ...args);
        assert.equal(code, 0, err);
        assert.match(out, pattern);
      };
      for (const groups of ["", "adm"]) {
        await succeedsWith(groups, /^99\.9\.9$/m, "version", "--format", "{{.Server.Version}}");
        await succeedsWith(groups, /^fake$/m, "ps", "--format", "{{.Names}}");
        await succeedsWith(groups, /container start f1/, "events");
      }
      await succeedsWith("adm", /^line 1\nline 2\n$/, "logs", "fake");
      await succeedsWith("adm", /^\/fake$/m, "inspect", "--format", "{{.Name}}", "fake");
      assert.ok(daemon.targets.includes("/_ping"), daemon.targets.join());
      assert.ok(
        daemon.targets.some((target) => /^\/v1\.\d+\/containers\/[^/]+\/logs\?/.test(target)),
      );

      const before = daemon.requests.length;
      const commands = [
        ["volume", "inspect", "version"],
        ["volume", "ls"],
        ["network", "ls"],
        ["images"],
        ["info"],
        ["top", "fake"],
        ["cp", "fake:/etc/shadow", "-"],
        ["exec", "fake", "true"],
        ["run", "image"],
        ["rm", "fake"],
        ["kill", "fake"],
      ];
      for (
        const [groups, list] of [["adm", commands], ["", [["logs", "fake"], [
          "inspect",
          "fake",
        ]]]] as const
      ) {
        for (const command of list) {
          const { code, out, err } = await docker(groups, ...command);
          assert.ok(code !== 0 || command[0] === "info", `${command}: ${out}`);
          assert.match(out + err, DENIED, `${command}`);
        }
      }
      const asked = daemon.requests.slice(before)
        .filter((line) =>
          !/^(HEAD|GET) \/_ping$/.test(line) && line !== "GET /containers/fake/json"
        );
      assert.deepEqual(asked, []);
    },
    adm,
    tool("setpriv"),
    needs.oneRuntime,
  );
}

testGuard(
  "the Docker policy in the docs decides alike with and without a version in the path",
  async () => {
    const daemon = await FakeDaemon.start();
    const guard = await Guard.start({
      upstream: daemon.path,
      mode: "http",
      policy: policyFile(documented),
    });
    const ask = async (groups: string, method: string, target: string) => {
      const curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--path-as-is"];
      const how = method === "HEAD" ? ["--head"] : ["-X", method];
      const url = `http://docker${target}`;
      return (await runAs(groups, ...curl, ...how, "--unix-socket", guard.path, url)).out;
    };
    for (const version of ["", "/v1.24", "/v1.48"]) {
      for (const [groups, inspects] of [["", "403"], ["adm", "200"]] as const) {
        const answers: [target: string, status: string][] = [
          ["/version", "200"],
          ["/containers/json", "200"],
          ["/events", "200"],
          ["/containers/fake/json", inspects],
          ["/containers/fake/logs?stdout=1", inspects],
          ["/volumes/version", "403"],
          ["/volumes/events", "403"],
          ["/images/json", "403"],
          ["/containers/fake/export", "403"],
          ["/containers/fake/attach/ws", "403"],
          ["/containers/a/b/logs", "403"],
          ["/info", "403"],
        ];
        for (const [target, status] of answers) {
          assert.equal(await ask(groups, "GET", version + target), status, version + target);
        }
        assert.equal(await ask(groups, "POST", `${version}/containers/json`), "403");
      }
    }
    for (const method of ["GET", "HEAD"]) assert.equal(await ask("", method, "/_ping"), "200");
    const heard = daemon.targets.filter((target) =>
      !/^(\/v1\.\d+)?\/(_ping|version|containers\/json|events|containers\/fake\/(json|logs))(\?|$)/
        .test(target)
    );
    assert.deepEqual(heard, []);
  },
  adm,
  tool("setpriv"),
  tool("curl"),
  needs.oneRuntime,
);
