/** Ends all processes of a session. */

import { nodeFs, nodeProcess } from "../adapters/builtins.ts";
import { openedSystem, type System } from "../adapters/select.ts";
import { SYS_GETSID } from "../ffi/terminal.ts";

/**
 * Sends SIGKILL to all processes of a session: those of all its process groups.
 *
 * A shell on a terminal puts each job into a process group of its own. The list of processes is read again
 * until it has no new process of the session, because a process can fork before it receives the signal.
 *
 * @param session The pid of the process that called setsid(2).
 */
export function killSession(session: number, system: System = openedSystem()): void {
  const { libc: { linux }, abi: { cpu } } = system;
  const number = SYS_GETSID[cpu];
  if (linux === undefined || number === undefined) return;
  const killed = new Set<number>();
  for (let isNew = true; isNew;) {
    isNew = false;
    for (const name of nodeFs().readdirSync("/proc")) {
      const pid = Number(name);
      if (!Number.isInteger(pid) || killed.has(pid)) continue;
      if (linux.syscall(number, pid, 0, 0) !== session) continue;
      killed.add(pid);
      isNew = true;
      try {
        nodeProcess().kill(pid, "SIGKILL");
      } catch {
        // ESRCH: the process has ended.
      }
    }
  }
}
