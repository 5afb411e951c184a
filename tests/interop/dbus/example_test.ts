/** The example of a service, with clients of several users. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { tool } from "../../support/guard.ts";
import { Child } from "../../support/peers.ts";
import { runtimeCommand } from "../../support/suite.ts";
import { as, busctl, ONE, startDaemon, testBus } from "./daemon.ts";

testBus("examples/dbus/clock.ts lets everybody read the time, and root set it", async () => {
  const { address } = await startDaemon();
  const file = fileURLToPath(new URL("../../../examples/dbus/clock.ts", import.meta.url));
  const environment = `DBUS_SESSION_BUS_ADDRESS=${address}`;
  const example = new Child("env", [environment, ...runtimeCommand(), file]);
  assert.equal(await example.line(), "serving org.example.Clock");
  const at = ["org.example.Clock", "/org/example/Clock", "org.example.Clock"];
  assert.match(await busctl(as(ONE), address, ...at, "Now"), /^d \d/);
  assert.match(await busctl(as(ONE), address, ...at, "Set", "d", "0"), /only root|Access denied/);
  assert.equal(await example.line(), `denied: Set of uid ${ONE}`);
  assert.equal(await busctl([], address, ...at, "Set", "d", "0"), 's "set by \\"root\\""');
}, tool("busctl"));
