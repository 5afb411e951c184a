/** Commands that run with other account files than those of this system. */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { AccountFiles } from "../../system/private_group.ts";
import { safeFolder } from "./safe_folder.ts";
import { type Need, succeeds } from "./suite.ts";

/** The right to create mount namespaces. */
export const mountNamespaces: Need = {
  name: "leave to make mount namespaces",
  met: succeeds("unshare", "-m", "true"),
};

/** The users root, toor (also uid 0), ann (4321) and bob (4322). The last two have groups with the same ids. */
export const FILES: AccountFiles = {
  passwd: "root:x:0:0:root:/root:/bin/sh\nann:x:4321:4321::/home/ann:/bin/sh\n" +
    "toor:x:0:0::/root:/bin/sh\nbob:x:4322:4322::/home/bob:/bin/sh\n",
  group: "root:x:0:\nann:x:4321:\nbob:x:4322:ann\nboth:x:4400:ann,bob\nempty:x:4500:\n",
  nsswitch:
    "passwd:  files systemd\ngroup: files [SUCCESS=merge] systemd # users\nhosts: files dns\n",
  subgid: "ann:100000:65536\n",
  userRecords: [],
};

/** Returns the start of a command line. What follows runs in a mount namespace with these files. */
export function withAccounts({ passwd, group, nsswitch, subgid }: AccountFiles): string[] {
  const folder = safeFolder();
  let mounts = "[ ! -d /run/systemd ] || mount -t tmpfs tmpfs /run/systemd\n"; // other sources
  for (const [name, text] of Object.entries({ passwd, group, "nsswitch.conf": nsswitch, subgid })) {
    writeFileSync(join(folder, name), text, { mode: 0o644 });
    mounts += `[ ! -e /etc/${name} ] || mount --bind ${join(folder, name)} /etc/${name}\n`;
  }
  return ["unshare", "-m", "sh", "-ec", `${mounts} exec "$@"`, "-"];
}
