/** Commands of the privileged helper on terminals: keys, sizes, jobs, and `ucred run` on a real terminal. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { openedSystem } from "../../../adapters/select.ts";
import { encodeFrame, FRAME, FrameDecoder } from "../../../interop/sudoers/helper/frames.ts";
import type { CommandControls, RunOptions } from "../../../interop/sudoers/helper/mod.ts";
import { PseudoTerminal } from "../../../system/pseudo_terminal.ts";
import { Terminal, tools } from "../../support/command.ts";
import {
  commandFolder,
  isRunning,
  privileged,
  raw,
  refusedBy,
  request,
  script,
  startHelper,
} from "../../support/privileged_helper.ts";
import { descriptorLinks } from "../../support/servers.ts";
import { needs, testWith, until } from "../../support/suite.ts";

const terminal = { columns: 77, rows: 33 };

/** Starts a command on a terminal, with keys that a test can press. */
function onTerminal(
  { run }: Awaited<ReturnType<typeof startHelper>>,
  command: string,
  args: readonly string[] = [],
  more: Partial<RunOptions> = {},
) {
  const keys = new TransformStream<Uint8Array, Uint8Array>();
  const writer = keys.writable.getWriter();
  const shown = { text: "" };
  const controls = Promise.withResolvers<CommandControls>();
  const done = run(command, args, {
    terminal,
    stdin: keys.readable as never,
    started: controls.resolve,
    stdout: (bytes) => void (shown.text += new TextDecoder().decode(bytes)),
    ...more,
  });
  done.catch(controls.reject);
  return {
    done,
    controls: controls.promise,
    shown,
    press: (text: string) => void writer.write(new TextEncoder().encode(text)).catch(() => {}),
    shows: (text: string) => until(() => shown.text.includes(text)),
  };
}

/** Counts the descriptors of terminals: the runtime may close others of earlier tests meanwhile. */
const terminals = () =>
  descriptorLinks().filter(([, link]) => /^\/dev\/(?:ptmx|pts\/)/.test(link)).length;

testWith(
  privileged,
  "createHelper() gives the command a terminal of its own, with the size of the client's",
  async () => {
    const helper = await startHelper();
    const show = script(
      join(commandFolder(), "show"),
      `#!/bin/sh
test -t 0 && test -t 1 && test -t 2 && echo terminals
stty size
stat -c %U "$(tty)"
: < /dev/tty && echo controlling
ps -o pid=,pgid=,sid=,tpgid= $$ | tr -s ' ' '\\n' | grep . | sort -u | wc -l
echo "$TERM $COLUMNS$LINES"
echo error >&2
exit 7
`,
    );
    const variables = { TERM: "xterm-256color", COLUMNS: "1", LINES: "2" };
    const { done, shown } = onTerminal(helper, show, [], { user: "daemon", variables });
    assert.equal((await done).code, 7);
    const expected = [
      "terminals",
      "33 77",
      "daemon",
      "controlling",
      "1",
      "xterm-256color ",
      "error",
    ];
    assert.deepEqual(shown.text.split("\r\n"), [...expected, ""]);
  },
);

testWith(privileged, "runCommand() carries changes of the terminal's size", async () => {
  const helper = await startHelper();
  const sizes = script(
    join(commandFolder(), "sizes"),
    "#!/bin/sh\ntrap 'stty size; exit 3' WINCH\necho ready\nwhile :; do sleep 0.05; done\n",
  );
  const { done, shown, shows, controls } = onTerminal(helper, sizes);
  await shows("ready");
  (await controls).resize({ columns: 200, rows: 50 });
  assert.equal((await done).code, 3);
  assert.match(shown.text, /\r\n50 200\r\n$/);
});

testWith(privileged, "runCommand() carries keys: signals, and the end of input", async () => {
  const helper = await startHelper();
  const waits = script(join(commandFolder(), "waits"), "#!/bin/sh\necho ready\nexec sleep 300\n");
  for (const [key, signal] of [["\x03", "SIGINT"], ["\x1c", "SIGQUIT"]] as const) {
    const { done, shows, press } = onTerminal(helper, waits);
    await shows("ready");
    press("\x1a"); // Ctrl-Z does not stop a command that no shell could continue
    press(key);
    assert.equal((await done).signal, signal);
  }
  const { done, shown, press, shows } = onTerminal(helper, "/usr/bin/cat");
  press("a line\r");
  await shows("a line\r\na line\r\n"); // the echo, and the output
  press("\x04");
  assert.equal((await done).code, 0);
  assert.equal(shown.text, "a line\r\na line\r\n");
});

testWith(
  privileged,
  "createHelper() kills the jobs of a shell, if the shell ends or the client disconnects",
  async () => {
    const helper = await startHelper();
    const folder = commandFolder();
    const mark = join(folder, "pids");
    const jobs = script(
      join(folder, "jobs"),
      `#!/bin/sh\nset -m\nsh -c 'trap "" HUP TERM; sleep 300; sleep 300' & echo "$$ $!" > ${mark}\necho ready\nread line\n`,
    );
    const pids = () => readFileSync(mark, "utf8").trim().split(" ");
    const shell = onTerminal(helper, jobs);
    await shell.shows("ready");
    shell.press("\r");
    assert.equal((await shell.done).code, 0);
    await until(() => pids().every((pid) => !isRunning(pid)));
    const left = onTerminal(helper, jobs);
    await left.shows("ready");
    (await left.controls).disconnect();
    await assert.rejects(left.done, refusedBy(/disconnected/));
    await until(() => pids().every((pid) => !isRunning(pid)));
    // Also without a terminal
    const { run } = helper;
    assert.equal((await run(jobs, [])).code, 1); // read fails at the end of stdin
    await until(() => pids().every((pid) => !isRunning(pid)));
  },
);

testWith(
  privileged,
  "createHelper() loses no output of a terminal, and leaves no descriptor and no process",
  async () => {
    const helper = await startHelper();
    const folder = commandFolder();
    const counts = script(join(folder, "counts"), "#!/bin/sh\nexec seq 1 60000\n");
    const before = terminals();
    const slow = onTerminal(helper, counts, [], {
      stdout: async (bytes) => {
        await new Promise((resolve) => setTimeout(resolve, 1)); // slower than the command
        slow.shown.text += new TextDecoder().decode(bytes);
      },
    });
    assert.equal((await slow.done).code, 0);
    const lines = slow.shown.text.split("\r\n");
    assert.deepEqual([lines.length, lines[0], lines[59_999]], [60_001, "1", "60000"]);
    await Promise.all(Array.from({ length: 10 }, () => onTerminal(helper, "/usr/bin/id").done));
    await until(() => terminals() === before);
  },
);

testWith(
  privileged,
  "createHelper() kills the command on a terminal when its time is up",
  async () => {
    const helper = await startHelper({ timeLimitSeconds: 0.3 });
    const { done } = onTerminal(helper, "/usr/bin/sleep", ["300"]);
    await assert.rejects(done, refusedBy(/time limit/));
    await until(() => helper.records.some(({ event }) => event === "ended"));
  },
);

testWith(
  privileged,
  "createHelper() ends a client that sends a size that no terminal has",
  async () => {
    const { path } = await startHelper();
    const socket = connect(path);
    socket.on("error", () => {});
    socket.write(request({ command: "/usr/bin/sleep", args: ["300"] }));
    const decoder = new FrameDecoder();
    let refusal = "";
    for await (const chunk of socket as AsyncIterable<Buffer>) {
      for (const { type, content } of decoder.decode(chunk)) {
        if (type === FRAME.started) {
          socket.write(
            encodeFrame(FRAME.resize, '{"columns":-1,"rows":1}'),
          );
        }
        if (type === FRAME.refused) refusal += content;
      }
    }
    assert.match(refusal, /columns and rows/);
    const unsized = request({ command: "/usr/bin/id", terminal: { columns: "x" } } as never);
    assert.match((await raw(path, [unsized])).refusal, /columns and rows/);
  },
);

testWith(
  [needs.linux, needs.root],
  "new PseudoTerminal() throws and closes its descriptors, if a call fails",
  () => {
    const system = openedSystem();
    const before = terminals();
    for (const failing of [1, 2, 3]) {
      let calls = 0;
      const linux = {
        ...system.libc.linux!,
        ioctl: (...of: Parameters<NonNullable<typeof system.libc.linux>["ioctl"]>) =>
          ++calls === failing ? -system.abi.errno.EIO! : system.libc.linux!.ioctl(...of),
      };
      const broken = { ...system, libc: { ...system.libc, linux } } as typeof system;
      assert.throws(() => new PseudoTerminal(terminal, 0, broken), { code: "ERR_UCRED_SYSCALL" });
    }
    const other = { ...system, libc: { ...system.libc, linux: undefined } } as typeof system;
    assert.throws(() => new PseudoTerminal(terminal, 0, other), { code: "ERR_UCRED_UNSUPPORTED" });
    const opened = new PseudoTerminal(terminal, 0);
    opened.close();
    opened.close();
    assert.throws(() => opened.master, { code: "ERR_UCRED_NO_FD" });
    assert.equal(terminals(), before);
  },
);

testWith(
  [...privileged, tools.tmux, needs.strangers],
  "ucred run connects its terminal with the command: keys, size, exit status",
  async () => {
    const { path } = await startHelper();
    const asks = script(
      join(commandFolder(), "asks"),
      `#!/bin/sh
trap 'echo "size: $(stty size)"' WINCH
trap 'echo interrupted' INT
stty size; stty -echo; echo "password?"
until read -r word; do :; done
stty echo; echo "read: $word"; exit 5
`,
    );
    using shell = new Terminal(90, ["run", "--socket", path, "--", asks]);
    await shell.shows("100 90");
    await shell.shows("password?");
    shell.press("C-c");
    await shell.shows("interrupted");
    shell.resize(70, 40);
    await shell.shows("size: 40 70");
    shell.press("s", "e", "c", "r", "e", "t", "Enter");
    const { text, code } = await shell.ended();
    assert.equal(code, 5);
    assert.match(text, /read: secret/);
    assert.doesNotMatch(text, /\?\s*secret/);
    shell.press("a", "Enter"); // the terminal echoes again
    await until(() => /\na\n/.test(shell.shown()));
  },
);
