/**
 * Prints each datagram that is sent to a path, with its sender. systemd-notify can use it as a notify
 * socket, and logger as a syslog socket.
 *
 *   node examples/datagrams/datagrams.ts /tmp/notify.sock     (or deno run -A, or bun)
 *   NOTIFY_SOCKET=/tmp/notify.sock systemd-notify READY=1
 *   logger --socket /tmp/notify.sock hello
 */

import process from "node:process";
import { UcredError } from "../../mod.ts";
import { receive } from "../../servers/datagram.ts";

const [path, ...rest] = process.argv.slice(2);
if (path === undefined || path.startsWith("-") || rest.length > 0) {
  console.error("Usage: datagrams.ts PATH");
  process.exit(2);
}

try {
  // systemd-notify passes a descriptor, and waits until the receiver closes it.
  using receiver = receive(path, { mode: 0o666, closeDescriptors: true });
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => receiver.close());
  console.log(`Receiving at ${path}`);
  for await (const { data, truncated, sender, forged } of receiver) {
    const { exe, unit } = sender.process;
    console.log(JSON.stringify({
      pid: sender.pid,
      user: sender.user ?? sender.uid,
      exe,
      unit,
      // JSON escapes line feeds, so that no sender can forge a line.
      text: new TextDecoder().decode(data),
      ...(truncated && { truncated }),
      ...(forged && { forged }),
    }));
  }
} catch (error) {
  if (!(error instanceof UcredError)) throw error;
  console.error(`${error.message}\n${error.hint}`);
  process.exitCode = 1;
}
