/**
 * A D-Bus service whose policy decides each call: everybody may read the time, root may set it.
 *
 * It connects to `DBUS_SESSION_BUS_ADDRESS`. Call it from another terminal of the same session:
 *
 *     gdbus call --session -d org.example.Clock -o /org/example/Clock -m org.example.Clock.Now
 */

import dbus from "dbus-native";
import { callerOf, dbusVocabulary, requireCaller } from "../../interop/dbus/mod.ts"; // "ucred/dbus"
import { parsePolicy } from "../../policy/mod.ts"; // "ucred/policy"

const policy = parsePolicy(
  `
version: 1
about: dbus
rules:
  - name: root
    when: { uid: 0 }
    actions: [call org.example.Clock.Now, call org.example.Clock.Set]
    allow: true
  - name: everybody reads
    actions: call org.example.Clock.Now
    allow: true
  - name: everybody introspects
    actions: call org.freedesktop.DBus.Introspectable.Introspect
    allow: true
  - { name: others, deny: only root may set the clock }
`,
  { vocabularies: [dbusVocabulary] },
);

let offset = 0;
const clock = dbus.defineInterface({
  name: "org.example.Clock",
  methods: {
    Now: { out: { milliseconds: "d" }, handler: () => Date.now() + offset },
    Set: {
      in: { milliseconds: "d" },
      out: { caller: "s" },
      handler: ({ milliseconds }, { message }) => {
        offset = milliseconds - Date.now();
        return `set by ${JSON.stringify(callerOf(message!).peer.user)}`;
      },
    },
  },
});

const bus = dbus.sessionBus();
requireCaller(bus, policy, {
  onDenied: ({ message: { member }, peer }) => console.log(`denied: ${member} of uid ${peer?.uid}`),
});
await bus.export("/org/example/Clock", clock);
await bus.requestName("org.example.Clock", 0);
console.log("serving org.example.Clock");
