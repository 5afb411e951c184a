/** `npm_client.ts FOLDER PACKAGE ADDRESS`: calls WhoAmI with a client library of npm, and prints the answer. */

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import process from "node:process";

const [folder, name, busAddress] = process.argv.slice(2) as [string, string, string];
const dbus = createRequire(pathToFileURL(`${folder}/package.json`))(name);
const bus = dbus.createClient({ busAddress });
const print = (text: unknown) => {
  console.log(String(text));
  process.exit();
};
bus.connection.on("error", (error: Error) => print(error.message));
bus.connection.on("end", () => print("disconnected"));
const call = { destination: "org.example.Bus", path: "/", interface: "org.example.Bus" };
bus.invoke(
  { ...call, member: "WhoAmI" },
  (error: Error | null, uid: number) => print(error ?? uid),
);
