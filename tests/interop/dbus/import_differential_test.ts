/** Compares imported bus policies with the decisions of dbus-daemon, on generated policies. */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { definePolicy } from "../../../mod.ts";
import { dbusVocabulary, importBusPolicy, type Policy } from "../../../interop/dbus/mod.ts";
import { temporaryFolder } from "../../support/compile.ts";
import { tool } from "../../support/guard.ts";
import { Child, type Ids } from "../../support/peers.ts";
import fc from "../../support/properties.ts";
import { needs, soak, testWith } from "../../support/suite.ts";
import { BUS, type Header, RawClient, type Received, type Type } from "./raw_client.ts";

const NEEDS = [needs.linux, needs.root, needs.native, needs.node, tool("dbus-daemon")];

/** The clients: each has an account, as dbus-daemon requires. The last one eavesdrops, which takes root. */
const IDS: readonly Ids[] = [
  { uid: 1, gid: 1, groups: [] },
  { uid: 2, gid: 2, groups: [8, 4] },
  { uid: 0, gid: 8, groups: [60] },
];
const NAMES = { A: "org.ex.A", SUB: "org.ex.A.Sub", B: "org.ex.B" };
/** Names that clients own, and those for which they are queued. */
const OWNED = [[NAMES.A, NAMES.SUB], [NAMES.B, NAMES.A], [NAMES.B]];

const oneOf = <T>(...values: readonly T[]) => fc.constantFrom(...values);
const maybe = <T>(values: fc.Arbitrary<T>, freq = 2) => fc.option(values, { nil: undefined, freq });

const PATHS = ["/a", "/a/b"];
const INTERFACES = ["org.i.One", "org.i.Two"];
const MEMBERS = ["Foo", "Bar"];
const ERRORS = ["org.e.One", "org.e.Two"];

const flag = oneOf("true", "false");
const common = {
  path: maybe(oneOf(...PATHS, "*"), 4),
  type: maybe(oneOf("method_call", "method_return", "signal", "error", "*"), 2),
  requested_reply: maybe(flag, 3),
};
const content = fc.oneof(
  fc.record({}),
  fc.record({ interface: oneOf(...INTERFACES, "*"), member: maybe(oneOf(...MEMBERS, "*")) }),
  fc.record({ error: oneOf(...ERRORS, "*") }),
);
const modifiers = fc.record({
  eavesdrop: maybe(flag, 3),
  min_fds: maybe(oneOf("0", "1"), 12),
  max_fds: maybe(oneOf("0", "5"), 12),
});

type Attributes = { readonly [name: string]: string | undefined };

const prefixed = (prefix: string, attributes: Attributes): Attributes =>
  Object.fromEntries(
    Object.entries(attributes).map(([name, value]) => [`${prefix}_${name}`, value]),
  );

const send = fc.tuple(
  content,
  fc.record({
    ...common,
    destination: maybe(oneOf(NAMES.A, NAMES.A, NAMES.B, ":1.1", BUS, "*"), 2),
    destination_prefix: maybe(oneOf("org", "org.ex", NAMES.A, "org.e"), 5),
    broadcast: maybe(flag, 6),
  }),
  modifiers,
).map(([content, more, modifiers]): Attributes => {
  const { destination, destination_prefix, broadcast, type } = more;
  const fits = broadcast !== "true" ||
    [destination, type === "signal" ? undefined : type].every((each) =>
      each === undefined || each === "*"
    );
  return {
    ...prefixed("send", {
      ...content,
      ...more,
      destination_prefix: destination === undefined ? destination_prefix : undefined,
      broadcast: fits ? broadcast : undefined,
    }),
    ...modifiers,
  };
});
const receive = fc.tuple(
  content,
  fc.record({ ...common, sender: maybe(oneOf(NAMES.A, NAMES.B, ":1.2", BUS, "*"), 2) }),
  modifiers,
).map(([content, more, modifiers]): Attributes => ({
  ...prefixed("receive", { ...content, ...more }),
  ...modifiers,
}));
const own = fc.oneof(
  oneOf(...["*", "org.own.A", "org.own.A.B", "org.own.AB"]).map((own): Attributes => ({ own })),
  oneOf("org.own", "org.own.A", "org").map((own_prefix): Attributes => ({ own_prefix })),
);
const rule = fc.tuple(
  oneOf("allow", "allow", "deny"),
  fc.oneof(
    { weight: 5, arbitrary: send },
    { weight: 4, arbitrary: receive },
    { weight: 2, arbitrary: own },
  ).filter((attributes) => isRule(attributes)),
).map(([effect, attributes]) => element(effect, attributes));

/** Whether a rule has an attribute by which dbus-daemon recognizes its kind. */
function isRule(attributes: Attributes): boolean {
  const names = Object.keys(attributes).filter((name) => attributes[name] !== undefined);
  const isReceive = !names.some((name) => name.startsWith("send_")) && names.includes("eavesdrop");
  const { min_fds: least = "0", max_fds: most = "9" } = attributes;
  return (isReceive || names.some((name) => /^(?:own|send_|receive_)/.test(name))) &&
    Number(least) <= Number(most);
}

const element = (name: string, attributes: Attributes) =>
  `<${name}${
    Object.entries(attributes).map(([name, value]) =>
      value === undefined ? "" : ` ${name}="${value}"`
    )
      .join("")
  }/>`;

const section = (contents: fc.Arbitrary<string>) =>
  fc.tuple(
    fc.oneof(
      { weight: 2, arbitrary: fc.constant('context="default"') },
      { weight: 2, arbitrary: oneOf('context="mandatory"', 'at_console="false"') },
      fc.constant('at_console="true"'),
      oneOf('user="daemon"', 'user="2"', 'user="sys"', 'user="root"'),
      { weight: 2, arbitrary: oneOf('group="mail"', 'group="4"', 'group="games"', 'group="bin"') },
    ),
    fc.array(contents, { minLength: 1, maxLength: 4 }),
  ).map(([subject, rules]) => `<policy ${subject}>\n  ${rules.join("\n  ")}\n</policy>`);

/** Half of the policies begin with rules that allow much, so that later ones have an effect. */
const generated = fc.tuple(
  oneOf(
    "",
    '<policy context="default"><allow send_type="method_call"/><allow send_type="signal"/>' +
      '<allow send_requested_reply="true" send_type="method_return"/><allow send_type="error"/>' +
      '<allow receive_type="method_call"/><allow receive_type="signal"/>' +
      '<allow receive_type="method_return"/><allow receive_type="error"/></policy>',
    '<policy context="default"><allow send_destination="*" eavesdrop="true"/>' +
      '<allow eavesdrop="true"/><allow own="*"/></policy>',
  ),
  fc.array(section(rule), { minLength: 1, maxLength: 6 }),
).map(([first, sections]) => [first, ...sections].join("\n"));

/** A message of one client, and its recipients. */
interface Message {
  readonly from: number;
  readonly type: Type;
  /** The index of a client; a name; `undefined`: none. */
  readonly to: number | string | undefined;
  readonly header: Header;
  readonly flags: number;
}

const message = fc.record({
  from: fc.nat(2),
  type: oneOf<Type>("call", "call", "signal", "return", "error"),
  to: oneOf<Message["to"]>(0, 1, 2, NAMES.A, NAMES.B, BUS, undefined),
  path: maybe(oneOf(...PATHS), 3),
  interface: maybe(oneOf(...INTERFACES), 3),
  member: maybe(oneOf(...MEMBERS), 3),
  error: maybe(oneOf(...ERRORS), 3),
  hasOthers: fc.nat(5).map((n) => n === 0),
  isReply: fc.nat(9).map((n) => n === 0),
  flags: oneOf(0, 1),
}).map(({ from, type, to, hasOthers, isReply, flags, ...fields }): Message => {
  const { path = "/a", interface: iface = "org.i.One", member = "Foo", error = "org.e.One" } =
    fields;
  const needed: Header = {
    call: { path, member, interface: fields.interface ?? null },
    signal: { path, member, interface: iface },
    return: { replySerial: 99_999 },
    error: { replySerial: 99_999, error },
  }[type];
  const header = {
    ...(hasOthers ? { ...fields } : {}),
    ...(isReply ? { replySerial: 99_999 } : {}),
    ...needed,
  };
  return { from, type, to: type === "signal" ? to : to ?? BUS, header, flags };
});

/** A bus whose policy changes, and its clients. */
class Bus {
  readonly file: string;
  readonly path: string;
  #child: Child | undefined;
  control!: RawClient;
  clients: RawClient[] = [];

  constructor() {
    const folder = temporaryFolder();
    this.file = join(folder, "bus.conf");
    this.path = join(folder, "bus.sock");
  }

  /** Writes the configuration. The bus itself can always be reached. */
  write(policies: string): void {
    writeFileSync(
      this.file,
      `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
<listen>unix:path=${this.path}</listen>
<auth>EXTERNAL</auth>
<limit name="max_replies_per_connection">1000000</limit>
${policies}
<policy context="mandatory">
  <allow send_destination="${BUS}" send_interface="${BUS}"/>
  <allow receive_sender="${BUS}"/>
</policy>
</busconfig>
`,
    );
  }

  async start(): Promise<void> {
    this.write(
      '<policy context="default"><allow user="*"/><allow own="*"/></policy>',
    );
    const flags = ["--nofork", "--nopidfile", "--print-address=1"];
    this.#child = new Child("dbus-daemon", [`--config-file=${this.file}`, ...flags]);
    await this.#child.line();
    this.control = (await RawClient.connect(this.path, { uid: 0, gid: 0, groups: [] }))!;
    for (const ids of IDS) this.clients.push((await RawClient.connect(this.path, ids))!);
    for (const [at, client] of this.clients.entries()) {
      for (const name of OWNED[at]!) await client.bus("RequestName", name, 0);
      const reply = await client.bus("AddMatch", at === 2 ? "eavesdrop='true'" : "type='signal'");
      assert.equal(reply.type, "return", reply.text);
    }
    assert.deepEqual(this.clients.map(({ name }) => name), [":1.1", ":1.2", ":1.3"]);
  }

  /** Replaces the policy, and returns the imported one. */
  async use(policies: string): Promise<Policy> {
    this.write(policies);
    const reply = await this.control.bus("ReloadConfig");
    assert.equal(reply.type, "return", reply.text);
    return definePolicy(importBusPolicy([this.file]), { vocabularies: [dbusVocabulary] });
  }

  /** Waits until everything that clients sent has been delivered. */
  async barrier(): Promise<void> {
    await Promise.all(this.clients.map((client) => client.bus("GetId")));
    await Promise.all(this.clients.map((client) => client.bus("GetId")));
  }

  async end(): Promise<void> {
    for (const client of [this.control, ...this.clients]) client.end();
    const ended = new Promise((resolve) => this.#child!.process.once("exit", resolve));
    this.#child!.process.kill();
    await ended;
  }
}

const ALL_NAMES = IDS.map((_, at) => [`:1.${at + 1}`, ...OWNED[at]!]);

/** The client that a message addresses; `undefined` for the bus and for broadcasts. */
function addressed(to: Message["to"]): number | undefined {
  if (typeof to === "number") return to;
  return to === NAMES.A ? 0 : to === NAMES.B ? 1 : undefined;
}

const peerOf = ({ uid, gid, groups }: Ids) => ({ uid, gid, groups });

function nameOf(type: Type, header: Header): string {
  const { interface: iface, member, error } = header;
  switch (type) {
    case "call":
      return `${iface ?? ""}.${member}`;
    case "signal":
      return ` signal ${iface}.${member}`;
    case "return":
      return " return";
    case "error":
      return ` error ${error}`;
  }
}

/** Whether the imported policy allows to send and to receive a message. */
function decisionsOf(
  policy: Policy,
  { from, type, to, header }: Message,
  recipient: number | undefined,
  isRequested: boolean,
): { readonly send: boolean; readonly receive: boolean } {
  const destination = typeof to === "number" ? `:1.${to + 1}` : to ?? null;
  const isEavesdropping = destination !== null && recipient !== addressed(to);
  const hasReplySerial = (header.replySerial ?? null) !== null;
  const requestedReply = hasReplySerial && isRequested && !isEavesdropping;
  const shared = {
    destination,
    path: header.path ?? null,
    interface: header.interface ?? null,
    member: header.member ?? null,
    error: header.error ?? null,
    signature: "",
    descriptors: 0,
    requestedReply,
    unrequestedReply: hasReplySerial && !requestedReply,
    eavesdropping: isEavesdropping,
    atConsole: false,
  };
  const words = nameOf(type, header);
  const decide = (client: number, action: string, attributes: { [name: string]: unknown }) =>
    policy.decide(peerOf(IDS[client]!), { action, attributes: { ...shared, ...attributes } })
      .allowed;
  const destinationNames = recipient === undefined ? [destination] : ALL_NAMES[recipient];
  return {
    send: decide(from, type === "call" ? `call ${words}` : `send${words}`, { destinationNames }),
    receive: recipient === undefined ||
      decide(recipient, type === "call" ? `receive call ${words}` : `receive${words}`, {
        senderNames: ALL_NAMES[from],
      }),
  };
}

interface Sent extends Message {
  readonly serial: number;
  readonly isRequested: boolean;
}

/** What the clients receive according to the daemon, and according to the policy. */
function compare(bus: Bus, policy: Policy, sent: readonly Sent[]): void {
  for (const each of sent) {
    const { from, type, to, serial, isRequested } = each;
    const { name } = bus.clients[from]!;
    const reply = bus.clients[from]!.received.find(({ header }) =>
      header.replySerial === serial && header.sender === BUS
    );
    const arrivals = bus.clients.map(({ received }) =>
      received.filter((found) => found.serial === serial && found.header.sender === name).length
    );
    const target = addressed(to);
    let isDelivered = true;
    if (to !== undefined) {
      const { send, receive } = decisionsOf(policy, each, target, isRequested);
      isDelivered = send && receive;
      const expected = !send ? "Rejected send" : receive ? undefined : "Rejected receive";
      const found = /^Rejected (?:send|receive)/.exec(reply?.text ?? "")?.[0];
      assert.equal(expected, found, `${JSON.stringify(each)} ${JSON.stringify(reply)}`);
    }
    for (const [at, count] of arrivals.entries()) {
      if (type === "call" && to === BUS) continue; // no copy is passed on if the bus returns an error
      const isRecipient = to === undefined || target === at || at === 2;
      const { send, receive } = decisionsOf(policy, each, at, isRequested);
      const expected = isRecipient && isDelivered && send && receive ? 1 : 0;
      assert.equal(expected, count, `to ${at}: ${JSON.stringify(each)} ${JSON.stringify(reply)}`);
    }
  }
}

/** Sends messages and replies to them, and compares what is delivered with the policy. */
async function exchange(
  bus: Bus,
  policy: Policy,
  messages: readonly Message[],
  replies: readonly Message[],
): Promise<void> {
  for (const client of bus.clients) client.received = [];
  const send = (each: Message, isRequested: boolean): Sent => {
    const { from, type, to, header, flags } = each;
    const destination = typeof to === "number" ? `:1.${to + 1}` : to ?? null;
    const serial = bus.clients[from]!.send(type, { ...header, destination }, flags);
    return { ...each, serial, isRequested };
  };
  const sent = messages.map((each) => send(each, false));
  await bus.barrier();
  compare(bus, policy, sent);

  // A reply for each call that was delivered, from the client that received it.
  const delivered = sent.filter(({ type, from, to, serial }) => {
    const target = addressed(to);
    const name = `:1.${from + 1}`;
    return type === "call" && target !== undefined &&
      bus.clients[target]!.received.some((each) =>
        each.serial === serial && each.header.sender === name
      );
  });
  const answers = delivered.map((call, at) => {
    const { type, header } = replies[at % replies.length]!;
    const from = addressed(call.to)!;
    const reply = { from, type, to: call.from, flags: 0 };
    const isRequested = call.flags === 0;
    return send({ ...reply, header: { ...header, replySerial: call.serial } }, isRequested);
  });
  await bus.barrier();
  compare(bus, policy, answers);
}

const OWN_NAMES = ["org.own", "org.own.A", "org.own.A.B", "org.own.AB", "org.other"];

async function requestNames(bus: Bus, policy: Policy): Promise<void> {
  for (const [at, client] of bus.clients.entries()) {
    const replies = OWN_NAMES.map((name) => {
      const reply: Promise<Received> = client.bus("RequestName", name, 4);
      void client.bus("ReleaseName", name);
      return reply;
    });
    for (const [index, name] of OWN_NAMES.entries()) {
      const { type } = await replies[index]!;
      const request = { action: `own ${name}`, attributes: { atConsole: false } };
      const { allowed } = policy.decide(peerOf(IDS[at]!), request);
      assert.equal(allowed, type === "return", `uid ${IDS[at]!.uid} owns ${name}`);
    }
  }
}

testWith(
  NEEDS,
  "importBusPolicy() decides as dbus-daemon does, for generated policies",
  async () => {
    const bus = new Bus();
    await bus.start();
    try {
      await fc.assert(
        fc.asyncProperty(
          generated,
          fc.array(message, { minLength: 20, maxLength: 40 }),
          fc.array(message.filter(({ type }) => type !== "call" && type !== "signal"), {
            minLength: 4,
            maxLength: 10,
          }),
          async (policies, messages, replies) => {
            const policy = await bus.use(policies);
            await requestNames(bus, policy);
            await exchange(bus, policy, messages, replies);
          },
        ),
        { numRuns: soak(80, 3000), endOnFailure: true },
      );
    } finally {
      await bus.end();
    }
  },
);

const connectRule = fc.tuple(
  oneOf("allow", "allow", "deny"),
  oneOf('user="*"', 'user="daemon"', 'user="2"', 'user="root"', 'group="*"', 'group="bin"'),
).map(([effect, attribute]) => `<${effect} ${attribute}/>`);
const connectPolicies = fc.array(
  fc.tuple(oneOf("default", "mandatory"), fc.array(connectRule, { minLength: 1, maxLength: 3 })),
  { minLength: 1, maxLength: 3 },
).map((sections) =>
  sections.map(([context, rules]) => `<policy context="${context}">${rules.join("")}</policy>`)
    .join("\n")
);

/** Whether dbus-daemon, and the imported policy, let a process connect. */
async function connects(bus: Bus, policy: Policy, ids: Ids): Promise<[boolean, boolean]> {
  const client = await RawClient.connect(bus.path, ids);
  client?.end();
  return [client !== undefined, policy.decide(peerOf(ids), { action: "connect" }).allowed];
}

testWith(NEEDS, "importBusPolicy() accepts the connections that dbus-daemon accepts", async () => {
  const bus = new Bus();
  await bus.start();
  try {
    const daemon = { uid: 1, gid: 1, groups: [] };
    const bin = { uid: 2, gid: 2, groups: [] };
    const root = { uid: 0, gid: 0, groups: [] };
    await fc.assert(
      fc.asyncProperty(connectPolicies, async (policies) => {
        const policy = await bus.use(policies);
        for (const ids of [daemon, bin, root]) {
          const [actual, ours] = await connects(bus, policy, ids);
          assert.equal(ours, actual, `uid ${ids.uid}`);
        }
      }),
      { numRuns: soak(20, 500) },
    );

    // The known differences: dbus-daemon looks up the account, the policy uses the ids of the process.
    const everybody = await bus.use('<policy context="default"><allow user="*"/></policy>');
    const unknown = { uid: 4321, gid: 4321, groups: [] };
    assert.deepEqual(await connects(bus, everybody, unknown), [false, true]);
    const members = await bus.use('<policy context="default"><allow group="mail"/></policy>');
    assert.deepEqual(await connects(bus, members, { ...bin, groups: [8] }), [false, true]);
    const others = await bus.use(
      '<policy context="default"><allow user="*"/><deny group="bin"/></policy>',
    );
    assert.deepEqual(await connects(bus, others, { ...bin, gid: 3 }), [false, true]);
  } finally {
    await bus.end();
  }
});
