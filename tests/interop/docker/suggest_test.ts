/** Suggested policies allow what was recorded, and nothing that was not. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Attributes } from "../../../core/policy/decide/decision.ts";
import { keptAttributes } from "../../../interop/docker/learned.ts";
import type { LearnedRequest, RecordedCaller, RecordedEntry } from "../../../interop/recording.ts";
import { entryIn, headerOf, readRecording } from "../../../interop/recording.ts";
import { type CallersBy, documentOf, suggest, type Suggestion } from "../../../interop/suggest.ts";
import { VOCABULARIES } from "../../../interop/vocabularies.ts";
import { DYNAMIC_IDS } from "../../../core/policy/analyze/lint_conditions.ts";
import { MAX_GLOB_CHARACTERS } from "../../../core/policy/document/schema.ts";
import { runTests } from "../../../core/policy/analyze/run_tests.ts";
import { definePolicy } from "../../../policy/define.ts";
import { cases } from "../../support/suite.ts";
import fc from "../../support/properties.ts";
import { CREATE, judged } from "./support.ts";

const ALICE = 1000, BOB = 1001;

const accounts = {
  uid: () => undefined,
  gid: (name: string) => name === "developers" ? 970 : undefined,
};

const entry = (
  request: Omit<LearnedRequest, "allowed"> & { readonly allowed?: boolean },
  caller: RecordedCaller = { uid: ALICE, gid: ALICE, groups: [ALICE] },
): RecordedEntry => ({ ...{ caller, allowed: true, count: 1, line: 2 }, ...request });

/** A recorded action with the attributes that the guard decided by. */
const acted = (action: string, attributes: Attributes, caller?: RecordedCaller) =>
  entry({ action, attributes: keptAttributes(action, attributes, caller?.uid ?? ALICE) }, caller);

function suggested(
  entries: readonly RecordedEntry[],
  by: CallersBy = "uid",
  includeDenied = false,
): { readonly suggestion: Suggestion; readonly policy: ReturnType<typeof definePolicy> } {
  const groupName = (gid: number) => gid === 970 ? "developers" : undefined;
  const suggestion = suggest({ mode: "docker", entries, bytes: 0 }, {
    ...{ by, includeDenied, groupName, accounts },
  });
  const document = documentOf(suggestion);
  const policy = definePolicy(document, { vocabularies: VOCABULARIES, accounts });
  const report = runTests(policy);
  assert.ok(report.passed, `${report}`);
  return { suggestion, policy };
}

/** What a new container may have, each as a value of the body or none. */
const FIELDS = {
  Image: fc.constantFrom("alpine", "nginx:1", "app"),
  User: fc.constantFrom(undefined, "0", `${ALICE}:${ALICE}`, "1:1"),
  Privileged: fc.constantFrom(undefined, true),
  CapAdd: fc.subarray(["NET_ADMIN", "SYS_ADMIN"]),
  CapDrop: fc.subarray(["ALL"]),
  Binds: fc.subarray(["/srv:/d", "/srv:/r:ro", "/etc:/e:ro", "/var/log:/l:z", "data:/v"]),
  PidMode: fc.constantFrom(undefined, "host"),
  IpcMode: fc.constantFrom(undefined, "host"),
  NetworkMode: fc.constantFrom(undefined, "none", "host", "backend"),
  SecurityOpt: fc.subarray(["no-new-privileges", "seccomp=unconfined", "apparmor=unconfined"]),
  RestartPolicy: fc.constantFrom(undefined, { Name: "always" }),
  PortBindings: fc.constantFrom(
    undefined,
    { "80/tcp": [{ HostPort: "80" }] },
    { "80/tcp": [{ HostPort: "8080" }] },
  ),
  Devices: fc.constantFrom(undefined, [{ PathOnHost: "/dev/fuse" }], [{ PathOnHost: "/dev/sda" }]),
  Sysctls: fc.constantFrom(undefined, { "net.core.somaxconn": "1" }, { "vm.swappiness": "1" }),
  Runtime: fc.constantFrom(undefined, "runsc"),
  CgroupParent: fc.constantFrom(undefined, "/system.slice"),
  GroupAdd: fc.subarray(["1", "2"]),
  MaskedPaths: fc.constantFrom(undefined, undefined, undefined, []),
};

type Fields = { readonly [name in keyof typeof FIELDS]: unknown };

function attributesOf({ Image, User, ...host }: Fields): Attributes {
  return judged(CREATE, { Image, User, HostConfig: host }).attributes;
}

/** Lists of which a request with fewer texts has more rights. */
const PROTECTING = ["capDrop", "securityOpt"];

/** Attributes that no rule tests: a reference, or the danger of the same field, decides instead. */
const UNTESTED = ["name", "labels", "platform", "mounts", "logDriver", "volumeDriver"];

/** Whether a request has something that no recorded one has. */
function isNew(attributes: Attributes, seen: readonly Attributes[]): boolean {
  return Object.entries(attributes).some(([name, value]) => {
    if (UNTESTED.includes(name) || value === undefined) return false;
    // If the user of one request is unknown, the rule tests no user.
    if (seen.some((other) => other[name] === undefined)) return false;
    if (!Array.isArray(value)) return seen.every((other) => other[name] !== value);
    const texts = seen.flatMap((other) => other[name] as string[]);
    const isProtected = (text: string) => name === "capDrop" || text.startsWith("no-new");
    const lacks = PROTECTING.includes(name) &&
      texts.some((text) =>
        isProtected(text) && seen.every((other) => (other[name] as string[]).includes(text)) &&
        !value.includes(text)
      );
    return lacks || value.some((text) => !isProtected(text) && !texts.includes(text));
  });
}

test("suggest() allows recorded containers, and denies each with a value that was not seen", () => {
  const body = fc.record(FIELDS);
  const names = Object.keys(FIELDS) as (keyof Fields)[];
  fc.assert(
    fc.property(
      fc.array(body, { minLength: 1, maxLength: 4 }),
      fc.array(fc.tuple(fc.nat(), fc.constantFrom(...names), body), { maxLength: 10 }),
      (bodies, changes) => {
        const all = bodies.map(attributesOf);
        const { policy } = suggested(all.map((each) => acted("container.create", each)));
        const isAllowed = (attributes: Attributes, uid = ALICE) =>
          policy.decide({ uid, gid: uid, groups: [uid] }, {
            ...{ action: "container.create", attributes },
          }).allowed;
        // A recording does not have the value of this field.
        const isDescribed = ({ dangers }: Attributes) =>
          !(dangers as string[]).includes("HostConfig.MaskedPaths");
        const seen = all.filter(isDescribed);
        for (const attributes of all) {
          assert.equal(isAllowed(attributes), isDescribed(attributes));
          assert.equal(isAllowed(attributes, BOB), false);
          assert.equal(isAllowed({ dangers: attributes["dangers"] }), false);
        }
        for (const [at, name, other] of changes) {
          const changed = { ...bodies[at % bodies.length]!, [name]: other[name] };
          const attributes = attributesOf(changed);
          if (isNew(attributes, seen)) {
            assert.equal(isAllowed(attributes), false, JSON.stringify({ seen, attributes }));
          }
        }
      },
    ),
    { numRuns: cases(120) },
  );
});

test("suggest() never combines the image of one request with the mount of another", () => {
  const create = (Image: string, Binds: string[]) =>
    judged(CREATE, { Image, HostConfig: { Binds } }).attributes;
  const seen = [create("a", ["/srv/a:/d"]), create("b", ["/srv/b:/d"]), create("c", [])];
  const { policy } = suggested(seen.map((each) => acted("container.create", each)));
  const isAllowed = (attributes: Attributes) =>
    policy.decide({ uid: ALICE }, { action: "container.create", attributes }).allowed;
  for (const attributes of seen) assert.ok(isAllowed(attributes));
  assert.equal(isAllowed(create("a", ["/srv/b:/d"])), false);
  assert.equal(isAllowed(create("c", ["/srv/a:/d"])), false);
  assert.equal(isAllowed(create("a", ["/srv:/d"])), false);
  assert.equal(isAllowed(create("a", ["/srv/a/x:/d"])), false);
});

test("suggest() allows acts on own objects by their owner, and on those of others by name", () => {
  const own = { id: "1".repeat(64), name: "web", owner: ALICE, dangers: [], labels: {} };
  const other = { id: "2".repeat(64), name: "db", owner: BOB, dangers: [], image: "x" };
  const { policy } = suggested([
    acted("container.stop", own),
    acted("container.logs", other),
    acted("network.inspect", { name: "bridge", dangers: [] }),
    entry({ action: "volume.inspect", about: "absent" }),
    acted("image.pull", { image: "docker.io/library/nginx:latest", platform: null, dangers: [] }),
  ]);
  const isAllowed = (action: string, attributes: Attributes) =>
    policy.decide({ uid: ALICE }, { action, attributes }).allowed;
  assert.ok(isAllowed("container.stop", { ...own, name: "another" }));
  assert.ok(!isAllowed("container.stop", other));
  assert.ok(!isAllowed("container.kill", own));
  assert.ok(isAllowed("container.logs", other));
  for (const change of [{ name: "web2" }, { owner: 7 }, { owner: undefined }, { dangers: ["x"] }]) {
    assert.ok(!isAllowed("container.logs", { ...other, ...change }), JSON.stringify(change));
  }
  assert.ok(isAllowed("network.inspect", { name: "bridge", dangers: [] }));
  assert.ok(!isAllowed("network.inspect", { name: "host", dangers: [] }));
  assert.ok(isAllowed("volume.inspect", { name: "v", owner: ALICE, dangers: [] }));
  assert.ok(!isAllowed("volume.inspect", { name: "v", dangers: [] }));
  assert.ok(!isAllowed("image.pull", { image: "docker.io/library/nginx:1", dangers: [] }));
});

test("suggest() writes rules by uid, group, unit or container, and none wider", () => {
  const unit = "ci.service", container = "c".repeat(64);
  const one = { uid: ALICE, gid: ALICE, groups: [ALICE, 970], unit };
  const two = { uid: BOB, gid: BOB, groups: [BOB, 970], container };
  const dynamic = { uid: 61200, gid: 61200, groups: [61200], unit };
  const entries = [
    acted("system.version", {}, one),
    acted("container.stop", { owner: BOB, dangers: [] }, two),
    acted("system.version", {}, dynamic),
  ];
  const whens = (by: CallersBy) =>
    suggested(entries, by).suggestion.rules.map(({ rule }) => rule.when);
  assert.deepEqual(whens("uid"), [{ uid: ALICE }, { uid: BOB }, { uid: 61200 }]);
  assert.deepEqual(whens("group"), [{ group: "developers" }, { group: "developers" }]);
  assert.deepEqual(whens("unit"), [{ unit }, { uid: BOB }]);
  assert.deepEqual(whens("container"), [
    { uid: ALICE },
    { uid: BOB, container },
    { uid: 61200 },
  ]);
  const whenOf = (by: CallersBy, caller: RecordedCaller) =>
    suggested([acted("system.version", {}, caller)], by).suggestion.rules[0]!.rule.when;
  assert.deepEqual(whenOf("group", { uid: 5, gid: 970 }), { group: "developers" });
  const { first, last } = DYNAMIC_IDS;
  for (const uid of [first, last]) {
    assert.deepEqual(whenOf("unit", { uid, unit }), { unit });
    assert.deepEqual(whenOf("unit", { uid }), { uid });
    assert.deepEqual(whenOf("container", { uid, container }), { uid, container });
  }
  for (const uid of [first - 1, last + 1]) {
    assert.deepEqual(whenOf("unit", { uid, unit }), { uid, unit });
  }
  const { missing } = suggested(entries, "group").suggestion;
  assert.deepEqual(missing.map(({ why }) => why), ["its caller has no group with a name"]);
  const star = acted("system.info", {}, { ...one, unit: "a*b.service" });
  assert.deepEqual(suggested([star], "unit").suggestion.rules, []);
  const [{ notes }] = suggested([acted("system.info", {}, { uid: 0 })]).suggestion.rules as [
    Suggestion["rules"][number],
  ];
  assert.match(notes.join(), /Root of a container/);
  const ours = ["user", "pid"] as const;
  const root = { uid: 0, gid: 0, groups: [0], ours };
  const { policy } = suggested([acted("swarm.inspect", {}, root)]);
  const decide = (ours: boolean) =>
    policy.decide(
      { uid: 0, process: { namespaces: { user: { ours: true }, pid: { ours } } } },
      { action: "swarm.inspect" },
    ).allowed;
  assert.deepEqual([decide(true), decide(false)], [true, false]);
});

test("suggest() makes tests of recorded requests, and of requests that were not recorded", () => {
  const alice = { uid: ALICE, gid: ALICE, groups: [ALICE, 970] };
  const ours = ["user", "pid", "mnt"] as const;
  const namespaces = { user: { ours: true }, pid: { ours: true }, mnt: { ours: true } };
  const root = { uid: 0, gid: 0, groups: [0] };
  const entries = [
    { ...entry({ action: "GET /a" }, alice), count: 3 },
    entry({ action: "POST /b" }, alice),
    entry({ action: "GET /a" }, { ...root, ours }),
    entry({ action: "GET /a" }, { ...root, ours: ["user", "pid", "mnt", "net"] }),
  ];
  const options = { by: "uid", includeDenied: false, groupName: () => undefined } as const;
  const { rules, tests, about } = suggest({ mode: "http", entries, bytes: 0 }, options);
  assert.equal(about, undefined);
  assert.deepEqual(rules, [
    {
      rule: {
        name: "uid 1000: GET /a and 1 more",
        when: { uid: ALICE },
        actions: ["GET /a", "POST /b"],
        allow: true,
      },
      notes: ["Seen 4 times"],
    },
    {
      rule: {
        name: "uid 0: GET /a",
        when: { uid: 0, sameNamespaces: ["user", "pid", "mnt"] },
        actions: "GET /a",
        allow: true,
      },
      notes: ["Seen 2 times"],
    },
  ]);
  const stranger = { uid: 59_999, gid: 59_999, groups: [] };
  const ofRoot = { ...root, process: { namespaces } };
  const other = "DELETE /ucred-was-never-seen";
  const [allow, deny] = [{ allow: true }, { deny: true }];
  assert.deepEqual(tests, [
    { peer: alice, action: "GET /a", expect: allow },
    { peer: alice, action: "POST /b", expect: allow },
    { peer: ofRoot, action: "GET /a", expect: allow },
    { peer: ofRoot, action: "GET /a", expect: allow },
    ...[
      { name: "uid 1000: another caller is denied", peer: stranger, action: "GET /a" },
      { name: "uid 1000: other requests are denied", peer: alice, action: other },
      { name: "uid 0: another caller is denied", peer: stranger, action: "GET /a" },
      { name: "uid 0: other requests are denied", peer: ofRoot, action: other },
    ].map((test) => ({ ...test, expect: deny })),
  ]);
});

test("suggest() makes tests of containers and objects that were not recorded", () => {
  const created = keptAttributes("container.create", judged(CREATE, { Image: "a" }).attributes, 1)!;
  const stopped = { owner: ALICE, dangers: [] };
  for (
    const [by, fact, other] of [
      ["unit", "ci.service", "other.service"],
      ["container", "c".repeat(64), "0".repeat(64)],
    ] as const
  ) {
    const caller = { uid: ALICE, gid: ALICE, groups: [ALICE] };
    const recorded = { ...caller, [by]: fact };
    const { tests, rules } = suggested([
      entry({ action: "container.stop", attributes: stopped }, recorded),
      entry({ action: "container.create", attributes: created }, recorded),
      entry({ action: "container.exec", about: "absent" }, recorded),
      entry({ action: "container.list" }, recorded),
    ], by).suggestion;
    const peer = { ...caller, process: { [by]: fact } };
    const label = `${by} ${fact}`;
    const image = { image: created["image"] };
    assert.deepEqual(tests.map(({ expect, ...test }) => [test, "allow" in expect]), [
      [{ peer, action: "container.stop", attributes: stopped }, true],
      [{ peer, action: "container.create", attributes: created }, true],
      [
        { peer, action: "container.exec", attributes: { ...stopped, privileged: false } },
        true,
      ],
      [{ peer, action: "container.list" }, true],
      ...[
        {
          name: `${label}: another caller is denied`,
          peer: { ...caller, process: { [by]: other } },
          ...{ action: "container.stop", attributes: stopped },
        },
        {
          name: `${label}: no privileged container`,
          ...{ peer, action: "container.create" },
          attributes: { ...created, privileged: true, dangers: ["HostConfig.Privileged"] },
        },
        {
          name: `${label}: nothing of others`,
          ...{ peer, action: "container.stop", attributes: { ...stopped, owner: 59_999 } },
        },
        ...["swarm.write", "plugin.write"].map((action) => ({
          name: `${label}: no ${action}`,
          ...{ peer, action, attributes: { dangers: [action] } },
        })),
      ].map((test) => [test, false]),
    ]);
    assert.ok(
      rules.some(({ notes }) => notes.join().includes("It lists the objects of all users")),
    );
    assert.ok(rules.some(({ rule }) => JSON.stringify(rule).includes(JSON.stringify(image.image))));
  }
});

test("suggest() names rules by their callers, and leaves out texts that no rule can have", () => {
  const long = "x".repeat(MAX_GLOB_CHARACTERS - "GET /".length);
  const texts = [`GET /${long}`, `GET /${long}x`, "GET /a\u202e", ""];
  const options = { by: "unit", includeDenied: false, groupName: () => undefined } as const;
  const { rules, missing } = suggest({
    ...{ mode: "http", bytes: 0 },
    entries: [
      ...texts.map((action) => entry({ action })),
      entry({ action: "GET /a" }, { uid: ALICE, unit: "x.service" }),
      entry({ action: "GET /a" }, { uid: BOB, unit: "x.service" }),
      entry({ action: "GET /a" }, { uid: 3, unit: "" }),
    ],
  }, options);
  assert.deepEqual(rules.map(({ rule: { name, when } }) => [name, when]), [
    [`uid ${ALICE}: GET /${long}`.slice(0, 110), { uid: ALICE }],
    ["unit x.service: GET /a", { uid: [ALICE, BOB], unit: "x.service" }],
  ]);
  assert.deepEqual(missing.map(({ why }) => why), [
    "the unit of its caller: one of its texts is empty",
    "one of its texts is too long for a rule",
    "one of its texts contains invisible characters",
    "one of its texts is empty",
  ]);
  const starred = judged(CREATE, { Image: "a", HostConfig: { Binds: ["/srv/*:/d"] } });
  const { suggestion } = suggested([acted("container.create", starred.attributes)]);
  assert.deepEqual([suggestion.rules, suggestion.missing.map(({ why }) => why)], [
    [],
    ["one of its texts contains a star, which a rule cannot express"],
  ]);
});

test("suggest() leaves out what was denied, cannot be expressed, or has no recorded value", () => {
  const stranger = { gid: 5 }; // whose uid is ambiguous
  const entries = [
    acted("container.logs", { name: "a*b", dangers: [] }),
    acted("volume.create", { driver: "local", driverOpts: ["device=/"], dangers: ["DriverOpts"] }),
    acted("swarm.write", { dangers: ["swarm.write"] }),
    entry({ action: "system.info" }, stranger),
    entry({ action: "container.create", about: "long" }),
    { ...acted("system.events", {}), allowed: false },
  ];
  const { suggestion, policy } = suggested(entries);
  assert.deepEqual(suggestion.rules, []);
  assert.equal(suggestion.denied, 1);
  assert.deepEqual(suggestion.missing.map(({ entry: { action } }) => action).toSorted(), [
    ...["container.create", "container.logs", "swarm.write", "system.info", "volume.create"],
  ]);
  assert.deepEqual(suggestion.unlimited.map(({ rule }) => rule.actions), [
    "volume.create",
    "swarm.write",
  ]);
  const attributes = { driver: "local", dangers: ["DriverOpts"] };
  assert.equal(
    policy.decide({ uid: ALICE }, { action: "volume.create", attributes }).allowed,
    false,
  );
  const more = suggested(entries, "uid", true);
  assert.deepEqual(more.suggestion.rules.map(({ rule }) => rule.actions), ["system.events"]);
});

test("suggest() allows no danger whose attributes the recording does not have", () => {
  const values: readonly (readonly [action: string, danger: string, attributes: Attributes])[] = [
    ["container.create", "HostConfig.Binds", { image: "app" }],
    ["container.create", "HostConfig.Devices", { image: "app", networkMode: "default" }],
    ["volume.create", "Driver", {}],
    ["container.update", "Devices", { owner: ALICE }],
    ["exec.start", "Privileged", { owner: ALICE }],
  ];
  for (const [action, danger, more] of values) {
    const attributes = { ...more, dangers: [danger] };
    const { policy, suggestion } = suggested([acted(action, attributes)]);
    const hostile = { ...attributes, binds: ["/"], devices: ["/dev/sda"], driver: "evil" };
    const peer = { uid: ALICE, gid: ALICE, groups: [ALICE] };
    const request = { action, attributes: { ...hostile, privileged: true } };
    assert.equal(policy.decide(peer, request).allowed, false, danger);
    assert.equal(suggestion.missing.length, 1);
  }
});

test("keptAttributes() keeps no secret, and nothing that differs between own containers", () => {
  const request = judged(`${CREATE}?name=web`, {
    ...{ Image: "a", Env: ["PASSWORD=hunter2"], Cmd: ["hunter2"], Labels: { a: "hunter2" } },
  });
  const kept = keptAttributes("container.create", request.attributes, ALICE)!;
  assert.doesNotMatch(JSON.stringify(kept), /hunter2|"name"|"id"|labels/);
  const own = { id: "1", name: "web", owner: ALICE, image: "a", dangers: [], binds: ["/srv"] };
  assert.deepEqual(keptAttributes("container.stop", own, ALICE), { owner: ALICE, dangers: [] });
  assert.deepEqual(keptAttributes("container.stop", own, BOB), {
    ...{ name: "web", owner: ALICE, dangers: [] },
  });
  const exec = { ...own, command: ["hunter2"], privileged: false };
  assert.deepEqual(keptAttributes("container.exec", exec, ALICE), {
    ...{ owner: ALICE, dangers: [], privileged: false },
  });
  const volume = { name: "v", driver: "local", driverOpts: ["password=hunter2"], dangers: [] };
  assert.deepEqual(keptAttributes("volume.create", volume, ALICE), {
    ...{ dangers: [], driver: "local" },
  });
});

test("entryIn() accepts the types of a recording, and no others", () => {
  const good = { caller: {}, action: "a", allowed: true };
  const right = [
    ...[{}, { caller: { uid: 1, gid: 0, groups: [], unit: "u", container: "c", ours: ["pid"] } }],
    ...["absent", "some", "long"].map((about) => ({ about })),
    ...[null, true, 5, "x", [], ["x", "y"]].map((value) => ({ attributes: { a: value, b: 1 } })),
  ];
  const wrong = [
    ...[{ caller: null }, { caller: "x" }, { action: 5 }, { action: undefined }],
    ...[{ allowed: 1 }, { about: "other" }, { attributes: [] }, { attributes: "x" }],
    ...[{ uid: "1" }, { gid: -1 }, { groups: 5 }, { groups: [1, "2"] }, { groups: ["2", 1] }]
      .map((caller) => ({ caller })),
    ...[{ unit: 5 }, { container: 5 }, { ours: "pid" }, { ours: ["pid", "x"] }, { ours: [5] }]
      .map((caller) => ({ caller })),
    ...[NaN, {}, ["x", 5], [5, "x"]].map((value) => ({ attributes: { a: value, b: 1 } })),
  ];
  for (const change of right) {
    const { line, count, ...found } = entryIn({ ...good, ...change }, 7)!;
    const unset = { attributes: undefined, about: undefined };
    assert.deepEqual({ line, count, ...found }, {
      ...unset,
      ...good,
      ...change,
      line: 7,
      count: 1,
    });
  }
  for (const change of wrong) {
    assert.equal(entryIn({ ...good, ...change }, 7), undefined, JSON.stringify(change));
  }
});

test("readRecording() rejects each line that it cannot read, with file and line", () => {
  const header = '{"recording":1,"mode":"docker"}\n';
  const read = (text: string) => readRecording(new TextEncoder().encode(text), "file.jsonl");
  const good = '{"caller":{"uid":1},"action":"system.info","allowed":true}\n';
  assert.equal(read(`${header}${good}{"entry":1,"count":2}\n{"caller":`).entries[0]!.count, 3);
  assert.equal(read(`${header}${good}{"call`).bytes, header.length + good.length);
  for (const mode of ["http", "docker"] as const) {
    assert.equal(read(`${JSON.stringify(headerOf(mode))}\n`).mode, mode);
  }
  const latin = Uint8Array.from([0x22, 0xe9, 0x22, 10]);
  assert.throws(() => readRecording(latin, "file.jsonl"), /file\.jsonl:1:1: it is not in UTF-8/);
  const wrong: readonly (readonly [text: string, place: RegExp])[] = [
    ["", /file\.jsonl:1:1: the recording is empty/],
    [good, /file\.jsonl:1:1: the first line/],
    ['{"recording":2,"mode":"docker"}\n', /file\.jsonl:1:1: the first line/],
    ['{"recording":1,"mode":"stream"}\n', /file\.jsonl:1:1: the first line/],
    [`${header}${good}${good}{"entry":"2","count":1}\n`, /file\.jsonl:4:/],
    [`${header}${good}{"entry":1,"count":"1"}\n`, /file\.jsonl:3:/],
    [`${header}${good}{"entry":1,"count":1.5}\n`, /file\.jsonl:3:/],
    [`${header}${good}nonsense\n`, /file\.jsonl:3:/],
    [`${header}[]\n`, /file\.jsonl:2:/],
    [`${header}{"caller":{"uid":-1},"action":"a","allowed":true}\n`, /file\.jsonl:2:/],
    [`${header}{"caller":{"uid":1,"x":1},"action":"a","allowed":true}\n`, /file\.jsonl:2:/],
    [`${header}{"caller":{},"action":"a","allowed":"true"}\n`, /file\.jsonl:2:/],
    [`${header}{"caller":{},"action":"a","attributes":{"a":[1]},"allowed":true}\n`, /:2:/],
    [`${header}${good}{"entry":2,"count":1}\n`, /file\.jsonl:3:/],
    [`${header}${good}{"entry":1,"count":0}\n`, /file\.jsonl:3:/],
    [`${header}${good}{"entry":"__proto__","count":1}\n`, /file\.jsonl:3:/],
  ];
  for (const [text, place] of wrong) {
    assert.throws(() => read(text), place, text);
  }
});
