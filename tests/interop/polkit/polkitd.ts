/** A polkitd with its own actions and rules, on a private bus. */

import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import type { MessageBus } from "dbus-native";
import { temporaryFolder } from "../../support/compile.ts";
import { tool } from "../../support/guard.ts";
import { Child } from "../../support/peers.ts";
import { type Need, needs, succeeds, testWith, until } from "../../support/suite.ts";
import { connectTo, startDaemon } from "../dbus/daemon.ts";

const PROGRAM = ["/usr/lib/polkit-1/polkitd", "/usr/libexec/polkitd"].find(existsSync);

const polkitd: Need = { name: "polkitd (Debian: polkitd)", met: PROGRAM !== undefined };
const account: Need = { name: "an account polkitd", met: succeeds("id", "polkitd") };

/** A test with a polkitd, and clients of several users. */
export function testPolkit(name: string, run: () => Promise<void>, ...more: readonly Need[]): void {
  const all = [needs.linux, needs.root, needs.native, needs.cc, needs.mountNamespace];
  testWith([...all, tool("dbus-daemon"), tool("unshare"), polkitd, account, ...more], name, run);
}

const action = (id: string, any: string) => `
  <action id="org.example.${id}">
    <description>Test ${id}</description>
    <message>Test ${id}</message>
    <defaults>
      <allow_any>${any}</allow_any>
      <allow_inactive>${any}</allow_inactive>
      <allow_active>${any}</allow_active>
    </defaults>
  </action>`;

/** A file of actions: the last part of the id, and the result for everybody. */
export const actionsOf = (list: readonly (readonly [string, string])[]): string =>
  `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/PolicyKit/1/policyconfig.dtd">
<policyconfig>
${list.map(([id, any]) => action(id, any)).join("")}
</policyconfig>
`;

const ACTIONS = actionsOf([["yes", "yes"], ["no", "no"], ["auth", "auth_admin_keep"]]);

/** The user "daemon" (1) may do "no" for the unit "x". */
const RULES = `polkit.addRule(function(action, subject) {
  if (action.id == "org.example.no" && subject.user == "daemon" && action.lookup("unit") == "x") {
    return polkit.Result.YES;
  }
});
`;

/** A running polkitd. */
export class Polkitd {
  readonly #command: readonly string[];
  readonly #bus: MessageBus;
  #child: Child;

  private constructor(command: readonly string[], bus: MessageBus) {
    this.#command = command;
    this.#bus = bus;
    this.#child = this.#start();
  }

  /** Starts it on a bus, and waits until it has its name. */
  static async start(
    address: string,
    bus: MessageBus,
    given: { readonly actions: string; readonly rules: string } = {
      actions: ACTIONS,
      rules: RULES,
    },
  ): Promise<Polkitd> {
    const folders = ["actions", "rules", "others"].map((name) => join(temporaryFolder(), name));
    for (const folder of folders) mkdirSync(folder, { mode: 0o755 });
    const [actions, rules, others] = folders as [string, string, string];
    writeFileSync(join(actions, "org.example.policy"), given.actions);
    writeFileSync(join(rules, "10-example.rules"), given.rules);
    const script = `mount --bind ${actions} /usr/share/polkit-1/actions &&
      mount --bind ${rules} /etc/polkit-1/rules.d &&
      mount --bind ${others} /usr/share/polkit-1/rules.d &&
      DBUS_SYSTEM_BUS_ADDRESS=${address} exec ${PROGRAM} --no-debug`;
    const polkitd = new Polkitd(["unshare", "--mount", "sh", "-c", script], bus);
    await polkitd.ready();
    return polkitd;
  }

  #start(): Child {
    const [program, ...args] = this.#command;
    return new Child(program!, args);
  }

  /** Waits until polkitd has its name on the bus. */
  async ready(): Promise<void> {
    await until(async () => (await this.#bus.listNames()).includes("org.freedesktop.PolicyKit1"));
  }

  /** Stops it, so that calls stay unanswered. */
  freeze(): void {
    process.kill(this.#child.process.pid!, "SIGSTOP");
  }

  /** Continues it. */
  thaw(): void {
    process.kill(this.#child.process.pid!, "SIGCONT");
  }

  /** Ends it at once, and waits until the bus has noticed. */
  async kill(): Promise<void> {
    this.#child.process.kill("SIGKILL");
    await until(async () => !(await this.#bus.listNames()).includes("org.freedesktop.PolicyKit1"));
  }

  /** Starts it again. */
  async restart(): Promise<void> {
    this.#child = this.#start();
    await this.ready();
  }
}

/** Starts a bus and a polkitd. */
export async function startPolkit(): Promise<{ bus: MessageBus; polkitd: Polkitd }> {
  const { address } = await startDaemon();
  const bus = await connectTo(address);
  return { bus, polkitd: await Polkitd.start(address, bus) };
}
