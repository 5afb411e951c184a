/** Tests of guards under attack, by either side and by files: others are served all the while. */

import assert from "node:assert/strict";
import { chmodSync, chownSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { visitAs } from "../support/servers.ts";
import { Wire } from "../support/http.ts";
import {
  answerAll,
  answerOf,
  Behind,
  End,
  Guard,
  policyFile,
  testGuard,
  tool,
  USERS,
} from "../support/guard.ts";
import { GuardHere } from "../support/guard_here.ts";
import { needs, sample, until } from "../support/suite.ts";

/** A server that answers as it is asked to: /PATH gives PATH; the paths of `special` what those say. */
function serverOf(
  requests: string[],
  special: { readonly [path: string]: (end: End) => void | Promise<void> } = {},
): Promise<Behind> {
  return Behind.start(async (end) => {
    while (true) {
      const { first } = await end.message();
      requests.push(first);
      const path = first.split(" ")[1]!;
      if (path in special) await special[path]!(end);
      else end.send(answerOf(path));
    }
  });
}

/** Somebody who is served as always. */
async function assertServed({ path }: { readonly path: string }, times = 3): Promise<void> {
  for (let i = 0; i < times; i++) {
    const client = await End.open(path);
    for (const target of ["/well", "/behaved"]) {
      assert.equal((await client.ask(target)).body, target);
    }
    client.destroy();
  }
}

async function httpGuard(behind: Behind, ...args: string[]): Promise<Guard> {
  return await Guard.start({ upstream: behind.path, mode: "http", args });
}

function guardOf(behind: Behind, options: { policy?: string } = {}): Promise<GuardHere> {
  return GuardHere.start({ upstream: behind.path, mode: "http", ...options });
}

testGuard(
  "guard serves other clients while hundreds send headers slowly, partly, or not at all",
  async () => {
    const requests: string[] = [];
    const guard = await httpGuard(await serverOf(requests), "--max-per-user", "1000");
    const before = guard.memory();
    const open = (count: number) =>
      Promise.all(Array.from({ length: count }, () => End.open(guard.path)));
    const [slow, halves, idle] = [await open(300), await open(100), await open(100)];
    for (const end of halves) end.send("GET /ha").end();
    for (const text of ["GET /slow HTTP/1.1\r\n", "Host: x\r\n", "X-1: ", "a", "b", "c"]) {
      for (const end of slow) end.send(text);
      await assertServed(guard);
    }
    for (const end of [...slow, ...halves, ...idle]) { // each is ended, at last
      assert.match(await end.rest(), /^(HTTP\/1\.1 4(00|08) |$)/);
    }
    assert.ok(!requests.some((line) => /slow|GET \/ha/.test(line)));
    await assertServed(guard);
    assert.ok(guard.memory() - before < 128, `${before} → ${guard.memory()} MiB`);
  },
);

testGuard(
  "guard rejects oversized headers, and frees their memory",
  async () => {
    const requests: string[] = [];
    const guard = await httpGuard(await serverOf(requests));
    const before = guard.memory();
    const line = `X-Filler: ${"x".repeat(1000)}\r\n`;
    for (
      const head of [
        `GET /huge HTTP/1.1\r\nHost: x\r\n${line.repeat(1000)}\r\n`,
        `GET /${"x".repeat(1 << 20)} HTTP/1.1\r\nHost: x\r\n\r\n`,
        `GET /huge HTTP/1.1\r\nHost: x\r\nX-One: ${"x".repeat(1 << 20)}\r\n\r\n`,
        `GET /huge HTTP/1.1\r\nHost: x\r\n${"A: b\r\n".repeat(50_000)}\r\n`,
      ]
    ) {
      const answers = await Promise.all(Array.from({ length: 10 }, async () => {
        const end = await End.open(guard.path);
        return await end.send(head).rest();
      }));
      for (const answer of answers) assert.match(answer, /^(HTTP\/1\.1 4(00|14|31) |$)/);
      await assertServed(guard, 1);
    }
    assert.ok(!requests.some((line) => /huge|xxx/.test(line)), "none of them was forwarded");
    assert.ok(guard.memory() - before < 192, `${before} → ${guard.memory()} MiB`);
  },
  needs.oneRuntime,
);

testGuard("guard serves other clients while some request much data and never read it", async () => {
  const piece = "x".repeat(1 << 16);
  let sent = 0;
  const behind = await serverOf([], {
    "/flood": async ({ socket }) => {
      socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      while (!socket.destroyed) {
        sent += piece.length;
        if (socket.write(`10000\r\n${piece}\r\n`)) continue;
        await new Promise((resolve) => socket.once("drain", resolve).once("close", resolve));
      }
    },
  });
  const guard = await httpGuard(behind);
  const before = guard.memory();
  const deaf = await Promise.all(Array.from({ length: 50 }, async () => {
    const end = await End.open(guard.path);
    end.socket.pause();
    return end.send("GET /flood HTTP/1.1\r\nHost: x\r\n\r\n");
  }));
  await assertServed(guard, 20);
  let last = -1;
  while (last !== sent) { // until nothing more is taken from the server
    last = sent;
    await sleep(300);
  }
  await assertServed(guard);
  assert.ok(guard.memory() - before < 256, `${before} → ${guard.memory()} MiB`);
  assert.ok(sent < 200 << 20, `${sent} bytes were taken for 50 who read none`);
  for (const end of deaf) end.destroy();
});

const truncated = {
  "a head": "HTTP/1.1 200 OK\r\nContent-Le",
  "a body with a length": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
  "a chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123",
  "chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
  "nothing": "",
};
/** A server that sends the n-th of these texts for /n, and ends. */
function breaking(texts: { readonly [what: string]: string }): Promise<Behind> {
  const entries = Object.values(texts).map((text, at) =>
    [`/${at}`, (end: End) => void end.send(text).end()] as const
  );
  return serverOf([], Object.fromEntries(entries));
}

testGuard(
  "guard closes the connection when the upstream dies in the middle of a response",
  async () => {
    const guard = await guardOf(await breaking(truncated));
    for (const [at, [what, text]] of Object.entries(truncated).entries()) {
      const client = await End.open(guard.path);
      client.send(`GET /${at} HTTP/1.1\r\nHost: x\r\n\r\n`);
      const answer = await client.rest();
      if (text.includes("\r\n\r\n")) {
        assert.match(answer, /^HTTP\/1\.1 200 /, what);
        assert.doesNotMatch(answer, /\r\n0\r\n\r\n$/, `${what}: no last chunk`);
        if (what.includes("length")) {
          assert.match(answer, /content-length: 10\r\n[^]*\r\n\r\n(12345)?$/i);
        }
      } else assert.match(answer, /^HTTP\/1\.1 502 /, what);
      await assertServed(guard);
    }
    assert.match(guard.log, /cannot be used: /);
  },
);

testGuard("guard closes an upgraded connection when the upstream dies", async () => {
  const behind = await serverOf([], {
    "/up": (end) => {
      end.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhello",
      );
      end.destroy();
    },
    "/die": (end) => end.destroy(),
    "/half": (end) => void end.send("HTTP/1.1 101 Swit").end(),
  });
  const guard = await guardOf(behind);
  const ask = async (path: string) =>
    await (await End.open(guard.path))
      .send(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n`).rest();
  assert.match(await ask("/up"), /^HTTP\/1\.1 101 [^]*\r\n\r\n(hello)?$/);
  for (const path of ["/die", "/half"]) assert.match(await ask(path), /^HTTP\/1\.1 502 /);
  await assertServed(guard);
});

const garbage = {
  "no HTTP": "\x00\x01\x02 garbage\r\n\r\n",
  "SSH": "SSH-2.0-OpenSSH\r\n",
  "a status that is none": "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
  "length and chunks":
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
  "two lengths": "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
  "a header without end": `HTTP/1.1 200 OK\r\nX: ${"x".repeat(1 << 20)}`,
  "control characters": "HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok",
};
testGuard(
  "guard answers 502 when the upstream sends garbage, and serves other clients",
  async () => {
    const guard = await guardOf(await breaking(garbage));
    for (const [at, what] of Object.keys(garbage).entries()) {
      const client = await End.open(guard.path);
      client.send(`GET /${at} HTTP/1.1\r\nHost: x\r\n\r\n`);
      assert.match(await client.rest(), /^HTTP\/1\.1 502 /, what);
      await assertServed(guard);
    }
  },
  needs.oneRuntime,
);

const UPGRADE = "Connection: Upgrade\r\nUpgrade: x\r\n";

const badStatusLines = {
  "a reason with a control character": "404 No\x01",
  "a reason with DEL": "404 No\x7f",
  "status 099": "099 Low",
  "status 000": "000 None",
  "status 600": "600 High",
  "status 999": "999 High",
};
for (const framing of ["Content-Length: 2", "Transfer-Encoding: chunked", "Connection: close"]) {
  testGuard(
    `guard outlives responses with ${framing} whose status line cannot be forwarded`,
    async () => {
      const body = framing.endsWith("chunked") ? "2\r\nok\r\n0\r\n\r\n" : "ok";
      const lines = Object.fromEntries(
        Object.entries(badStatusLines).map(([what, line]) =>
          [what, `HTTP/1.1 ${line}\r\n${framing}\r\n\r\n${body}`] as const
        ),
      );
      const guard = await guardOf(await breaking(lines));
      for (const [at, [what, line]] of Object.entries(badStatusLines).entries()) {
        for (
          const head of ["GET", "POST", "upgrade"].map((method) =>
            method === "upgrade"
              ? `GET /${at} HTTP/1.1\r\nHost: x\r\n${UPGRADE}`
              : `${method} /${at} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n`
          )
        ) {
          const answer = await (await End.open(guard.path)).send(`${head}\r\n`).end().rest();
          const status = line.startsWith("404") ? /^HTTP\/1\.1 404 / : /^HTTP\/1\.1 502 /;
          assert.match(answer, status, `${what}: ${head}`);
          assert.ok(!answer.includes("\x01") && !answer.includes("\x7f"), what);
          await assertServed(guard, 1);
        }
      }
      assert.match(guard.log, /cannot be used: /);
    },
    needs.oneRuntime,
  );
}

for (const when of ["at once", "later"]) {
  testGuard(`guard drops a second response to one request, sent ${when}`, async () => {
    const behind = await serverOf([], {
      "/two": async (end) => {
        if (when === "at once") end.send(answerOf("first") + answerOf("FORGED"));
        else {
          end.send(answerOf("first"));
          await sleep(30); // the connection is kept meanwhile
          end.send(answerOf("FORGED"));
        }
      },
    });
    const guard = await guardOf(behind);
    for (let round = 0; round < 10; round++) {
      const client = await End.open(guard.path);
      client.send("GET /two HTTP/1.1\r\nHost: x\r\n\r\n");
      const { status, body } = await client.message();
      assert.ok(status === 502 || body === "first");
      if (when === "later") await sleep(60);
      await assertServed(guard, 2);
      client.destroy();
    }
  });
}

/** Each is one request, or none, to whoever reads it rightly; what smuggles would be a DELETE. */
const smuggled = "DELETE /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
const body = smuggled.length;
const chunk = `${body.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`;
const SMUGGLERS: readonly string[] = [
  `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${body}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
  `POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n${chunk}`,
  `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: ${body}\r\n\r\n${smuggled}`,
  `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0, ${body}\r\n\r\n${smuggled}`,
  `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +${body}\r\n\r\n${smuggled}`,
  `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x${body.toString(16)}\r\n\r\n${smuggled}`,
  `POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n${chunk}`,
  `POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n${chunk}`,
  `POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n${chunk}`,
  `POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n${chunk}`,
  `POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n${chunk}`,
  `POST / HTTP/1.1\r\nHost: x\r\n Transfer-Encoding: chunked\r\nContent-Length: ${body}\r\n\r\n${smuggled}`,
  `POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\x0bchunked\r\n\r\n${chunk}`,
  `POST / HTTP/1.1\r\nHost: x\r\nX: y\nTransfer-Encoding: chunked\r\nContent-Length: ${body}\r\n\r\n${smuggled}`,
  `POST / HTTP/1.1\r\nHost: x\r\nX: a\r\rContent-Length: 0\r\n\r\n${smuggled}`,
  `POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${
    body.toString(16)
  };a=\n${smuggled}\r\n0\r\n\r\n`,
  `POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n${smuggled}\r\n0\r\n\r\n`,
  `POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1${
    "0".repeat(16)
  }\r\n${smuggled}`,
  `GET / HTTP/1.1\r\nHost: x\r\nContent-Length: ${body}\r\n\r\n${smuggled}`,
  `GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
  `HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: ${body}\r\n\r\n${smuggled}`,
  `OPTIONS / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
  `GET / HTTP/1.1\r\nHost: x\r\nConnection: Content-Length\r\nContent-Length: ${body}\r\n\r\n${smuggled}`,
  `GET / HTTP/1.1\r\nHost: x\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
  `GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: ${body}\r\n\r\n${smuggled}`,
  `GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: ${body}\r\n\r\n${smuggled}`,
  `GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n${smuggled}`,
  `GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
  `GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`,
  `GET /\r\n\r\n${smuggled}`,
  `GET / HTTP/0.9\r\n\r\n${smuggled}`,
  `GET / HTTP/2.0\r\nHost: x\r\n\r\n${smuggled}`,
  `GET / HTTP/1.1 HTTP/1.1\r\nHost: x\r\n\r\n`,
  `GET /a HTTP/1.1\r\nHost: x\r\nX: a\r\n\tDELETE /smuggled HTTP/1.1\r\n\r\n`,
  `GET /a%0d%0aX:%20y%0d%0a%0d%0aDELETE%20/smuggled HTTP/1.1\r\nHost: x\r\n\r\n`,
  `GET /a?\rDELETE /smuggled HTTP/1.1\r\nHost: x\r\n\r\n`,
  `GET / HTTP/1.1\r\nHost: x\r\nX-Method-Override: \x00\r\n\r\n${smuggled}`,
  "CONNECT /x HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled,
  "CONNECT up:80 HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled,
  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

testGuard(
  "guard forwards exactly the requests that it decided, despite smuggling attempts",
  async () => {
    // The server takes bytes as they come, and knows lengths and chunks as RFC 9112 has them.
    const requests: string[] = [];
    const behind = await Behind.start((end) =>
      answerAll(end, ({ first, header, body }) => {
        requests.push(first);
        const asked = Number(header("content-length") || 0);
        if (header("transfer-encoding") === "") assert.equal(body.length, asked);
        return first.startsWith("HEAD") ? "HTTP/1.1 200 OK\r\n\r\n" : answerOf("ok");
      })
    );
    const guard = await guardOf(behind, {
      policy: `version: 1
rules:
  - name: all but one
    when: { uid: 0 }
    actions: ["GET /**", "HEAD /**", "POST /**", "OPTIONS /**", "CONNECT **"]
    allow: true
`,
    });
    for (const bytes of sample(SMUGGLERS)) {
      requests.length = 0;
      const client = await End.open(guard.path);
      client.send(bytes);
      await sleep(10);
      client.end();
      await client.rest();
      const shown = JSON.stringify(bytes.slice(0, 200));
      assert.ok(
        !requests.some((line) => /smuggled|DELETE/.test(line.split(" ")[0]!)),
        `${shown}: ${requests}`,
      );
      assert.ok(requests.length <= 1, `${shown}: ${requests}`);
      assert.ok(
        !requests.some((line) => !/^(GET|HEAD|POST|OPTIONS) \/\S* HTTP\/1\.1$/.test(line)),
        shown,
      );
      client.destroy();
    }
    await assertServed2(guard);

    async function assertServed2({ path }: GuardHere): Promise<void> {
      const client = await End.open(path);
      for (let i = 0; i < 3; i++) assert.equal((await client.ask("/")).body, "ok");
    }
  },
);

testGuard("guard returns each user their own responses during smuggling attempts", async () => {
  const requests: string[] = [];
  const behind = await Behind.start((end) =>
    answerAll(end, ({ first, header }) => {
      requests.push(first);
      const text = `${header("x-ucred-uid")} ${first.split(" ")[1]}`;
      return first.startsWith("HEAD") ? "HTTP/1.1 200 OK\r\n\r\n" : answerOf(text);
    })
  );
  const guard = await guardOf(behind);
  let isOver = false;
  const attack = async () => {
    for (let i = 0; !isOver; i = (i + 1) % SMUGGLERS.length) {
      const client = await End.open(guard.path);
      client.send(SMUGGLERS[i]!).end();
      await client.rest();
      client.destroy();
    }
  };
  const attackers = [attack(), attack(), attack()];
  const wires = [USERS.one, USERS.two].map((uid) => ({ uid, wire: Wire.as(uid, guard.path) }));
  for (let i = 0; i < 200; i++) {
    await Promise.all(wires.map(async ({ uid, wire }) => {
      assert.equal((await wire.get(`/${i}`)).body, `${uid} /${i}`);
    }));
  }
  isOver = true;
  await Promise.all(attackers);
  assert.ok(requests.length > 400);
  const smuggled = requests.filter((line) => /smuggled|DELETE/.test(line.split(" ")[0]!));
  assert.deepEqual(smuggled, [], "none of them is a request of its own");
}, needs.oneRuntime);

testGuard(
  "guard keeps its policy in force when the file becomes unusable",
  async () => {
    const rules = (uid: number) =>
      `version: 1\nrules: [{ name: one, when: { uid: ${uid} }, allow: true }]\n`;
    const behind = await Behind.start((end) => void end.send("welcome").end());
    const file = policyFile(rules(USERS.one));
    const guard = await Guard.start({ upstream: behind.path, policy: file });
    const assertInForce = async (allowed: number, denied: number) => {
      assert.equal(await visitAs(allowed, guard.path), "welcome");
      assert.equal(await visitAs(denied, guard.path), "");
    };
    const replace = (text: string | Uint8Array) => {
      writeFileSync(`${file}.new`, text, { mode: 0o600 });
      renameSync(`${file}.new`, file);
    };
    const hurt: readonly [string, () => void][] = [
      ["binary garbage", () => replace(crypto.getRandomValues(new Uint8Array(10_000)))],
      ["nothing", () => replace("")],
      [
        "a policy that lets everybody in, with an unknown key",
        () => replace("version: 1\nrules: [{ name: all, allow: true, wehn: { uid: 1 } }]\n"),
      ],
      ["much too much", () => replace("# \n".repeat(3 << 20))],
      ["deletion", () => rmSync(file)],
      ["everybody's to write", () => {
        replace(rules(USERS.two));
        chmodSync(file, 0o666);
      }],
      ["somebody else's", () => {
        replace(rules(USERS.two));
        chownSync(file, USERS.two, USERS.two);
      }],
    ];
    for (const [what, harm] of hurt) {
      harm();
      await guard.logs("cannot be used; the previous policy stays in force");
      await assertInForce(USERS.one, USERS.two);
      await until(() => guard.log.trimEnd().includes("ucred: "));
      assert.ok(guard.child.exitCode === null, what);
    }
    replace(rules(USERS.two));
    await guard.logs("the new policy is in force");
    await assertInForce(USERS.two, USERS.one);
  },
  needs.oneRuntime,
);

testGuard(
  "guard limits each user on their own, so that one cannot lock out others",
  async () => {
    const behind = await Behind.start((end) => void end.send("welcome"));
    const guard = await GuardHere.start({
      upstream: behind.path,
      mode: "stream",
      policy: "version: 1\nrules: [{ name: all, allow: true }]\n",
      limits: { connectionsPerUser: 5 },
    });
    const wires = Array.from({ length: 8 }, () => Wire.as(USERS.one, guard.path));
    const outcomes = await Promise.all(
      wires.map((wire) => wire.until("welcome").then(() => "in", () => "out")),
    );
    assert.equal(outcomes.filter((outcome) => outcome === "in").length, 5);
    await Wire.as(USERS.two, guard.path).until("welcome");
    assert.equal(behind.count, 6);
    wires[outcomes.indexOf("in")]!.destroy();
    let outcome = "out";
    while (outcome === "out") { // the place is free as soon as the guard hears of it
      outcome = await Wire.as(USERS.one, guard.path).until("welcome").then(() => "in", () => "out");
    }
  },
);

testGuard(
  "guard accepts no more connections than RLIMIT_NOFILE permits, and recovers",
  async () => {
    const ends: End[] = [];
    const behind = await Behind.start((end) => void end.send("welcome"));
    const guard = await Guard.start({
      upstream: behind.path,
      policy: policyFile("version: 1\nrules: [{ name: all, allow: true }]\n"),
      args: ["--max-per-user", "1000"],
      prefix: ["prlimit", "--nofile=300:300"],
    });
    assert.match(
      guard.log,
      /^at most 57 connections, 57 per user, instead of 2048: .*LimitNOFILE/,
    );
    for (let round = 0; round < 2; round++) {
      const before = behind.count;
      for (let i = 0; i < 400; i++) ends.push(await End.open(guard.path));
      await until(() => behind.count >= before + 57);
      assert.equal(behind.count, before + 57);
      for (const end of ends.splice(0)) end.destroy();
      let isServed = false;
      while (!isServed) { // as soon as the guard hears that they have gone
        const wire = Wire.as(USERS.two, guard.path);
        isServed = await wire.until("welcome").then(() => true, () => false);
        wire.destroy();
      }
    }
  },
  tool("prlimit"),
);
