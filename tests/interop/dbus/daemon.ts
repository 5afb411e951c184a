/** A dbus-daemon on a private bus, and programs that several users run on it. */

import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import dbus from "dbus-native";
import { temporaryFolder } from "../../support/compile.ts";
import { tool } from "../../support/guard.ts";
import { Child, withIds } from "../../support/peers.ts";
import { endAfterEach, type Need, needs, testWith, until } from "../../support/suite.ts";

/** The uids of the callers, daemon and bin: dbus-daemon accepts only uids that have an account. */
export const ONE = 1;
export const TWO = 2;

/** A test with a dbus-daemon and clients of several users. */
export function testBus(
  name: string,
  run: () => void | Promise<void>,
  ...more: readonly Need[]
): void {
  const all = [needs.linux, needs.root, needs.native, tool("setpriv"), tool("dbus-daemon")];
  testWith([...all, ...more], name, run);
}

const configuration = (path: string, policy: string) =>
  `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path=${path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    ${policy}
  </policy>
</busconfig>
`;

/** A running dbus-daemon. */
export interface Daemon {
  readonly path: string;
  readonly address: string;
  readonly child: Child;
  /** Ends it, and waits until it has ended. */
  end(): Promise<void>;
}

/** Starts a dbus-daemon. `policy` is appended to a policy that allows everything. */
export async function startDaemon(
  path: string = join(temporaryFolder(), "bus.sock"),
  policy = "",
): Promise<Daemon> {
  const file = join(temporaryFolder(), "bus.conf");
  writeFileSync(file, configuration(path, policy));
  const flags = ["--nofork", "--nopidfile", "--print-address=1"];
  const child = new Child("dbus-daemon", [`--config-file=${file}`, ...flags]);
  await child.line(); // it is printed once the daemon listens
  const end = async () => {
    const ended = new Promise((resolve) => child.process.once("exit", resolve));
    child.process.kill();
    await ended;
  };
  return { path, address: `unix:path=${path}`, child, end };
}

const buses = new Set<dbus.MessageBus>();

/** Connects to a bus with dbus-native. */
export async function connectTo(
  busAddress: string,
  options: dbus.ConnectionOptions = {},
): Promise<dbus.MessageBus> {
  const bus = dbus.createClient({ busAddress, ...options });
  bus.connection.on("error", () => {});
  buses.add(bus);
  await until(() => bus.name !== undefined);
  return bus;
}

endAfterEach(async () => {
  for (const bus of buses) {
    bus.connection.end(); // close() alone would not end an attempt to reconnect
    await bus.close();
  }
  buses.clear();
});

/** The words that start a program as a user with these groups. */
export function as(uid: number, groups: readonly number[] = [uid]): string[] {
  const [gid = uid, ...others] = groups;
  return withIds({ uid, gid, groups: others });
}

/** Runs a program, and returns its output, or its error output if it fails. */
export async function run(...[command, ...args]: readonly string[]): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(command!, args, { cwd: "/", timeout: 30_000 });
    return stdout.trim();
  } catch (error) {
    return String((error as { stderr: string }).stderr).trim();
  }
}

/** Calls a method with busctl. */
export function busctl(
  prefix: readonly string[],
  address: string,
  ...args: string[]
): Promise<string> {
  return run(...prefix, "busctl", `--address=${address}`, "--timeout=20", "call", ...args);
}
