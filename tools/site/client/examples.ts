/** The examples of the playground. The documents explain the policies. */

import type { State } from "./state.ts";

/** A state with a title for the list. */
export interface Example extends State {
  readonly title: string;
}

const ACCOUNTS = `users: { root: 0, alice: 1000, bob: 1001, www-data: 33 }
groups: { adm: 4, www-data: 33, operators: 970, developers: 971 }
`;

const HTTP = `version: 1
about: http
rules:
  - name: root
    when: { uid: 0 }
    allow: full
  - name: no deletes
    actions: DELETE /**
    deny: Nothing is deleted here
  - name: operators
    when: { group: operators }
    actions: ["* /jobs/**", GET /status]
    allow: [read, write]
  - name: people read
    when: { uid: 1000-59999 }
    actions: GET /status
    allow: read
tests:
  - peer: { user: alice, groups: [operators] }
    action: DELETE /jobs/7
    expect: { deny: true, rule: no deletes }
`;

const DOCKER = `version: 1
about: docker
rules:
  - name: root of this host
    when: { uid: 0, sameNamespaces: [user] }
    allow: full
  - name: developers create contained objects
    when: { group: developers }
    actions: [container.create, volume.create, network.create]
    where: { dangers: { empty: true } }
    allow: true
  - name: developers act on their own
    when: { group: developers }
    actions: ["container.*", "exec.*", "volume.*", "network.*"]
    where: { owner: self, dangers: { empty: true } }
    allow: true
  - name: developers read and pull
    when: { group: developers }
    actions: [system.version, system.info, system.events, image.list, image.inspect, image.pull]
    allow: true
`;

const DBUS = `version: 1
about: dbus
rules:
  - name: root
    when: { uid: 0 }
    allow: true
  - name: people connect, and see the clock
    when: { uid: 1000-59999 }
    actions: [connect, see org.example.Clock]
    allow: true
  - name: people read the clock
    when: { uid: 1000-59999 }
    actions:
      - call org.example.Clock.Now
      - call org.freedesktop.DBus.Introspectable.Introspect
    where: { destinationNames: { some: org.example.Clock } }
    allow: true
  - name: signals of the clock
    when: { uid: 1000-59999 }
    actions: receive signal org.example.Clock.*
    where: { senderNames: { some: org.example.Clock } }
    allow: true
`;

const SUDO = `version: 1
about: sudo
rules:
  - name: operators restart the service
    when: { group: adm }
    actions: run
    where: { command: /usr/bin/systemctl, arguments: restart app.service, runasUser: root }
    allow: NOPASSWD
  - name: operators try the helper
    when: { group: adm }
    actions: run
    where: { command: /usr/bin/id, runasUser: [root, www-data] }
    allow: NOPASSWD
`;

const CONNECTIONS = `version: 1
rules:
  - name: root
    when: { uid: 0 }
    allow: full
  - name: the web server
    when: { user: www-data, unit: nginx.service }
    allow: read
  - name: operators
    when: { group: operators }
    allow: full
`;

/** The first one is shown when the page opens. */
export const EXAMPLES: readonly Example[] = [
  {
    title: "HTTP: an operator writes a job",
    policy: HTTP,
    edited: HTTP.replace("uid: 1000-59999", "uid: 1000-1999"),
    peer: '{ "user": "alice", "gid": 1000, "groups": ["operators"] }',
    action: "POST /jobs/7",
    attributes: "",
    accounts: ACCOUNTS,
  },
  {
    title: "HTTP: a user without the group",
    policy: HTTP,
    edited: HTTP.replace("DELETE /**", "DELETE /jobs/**"),
    peer: '{ "user": "bob", "gid": 1001, "groups": [] }',
    action: "POST /jobs/7",
    attributes: "",
    accounts: ACCOUNTS,
  },
  {
    title: "Docker: a privileged container",
    policy: DOCKER,
    edited: DOCKER.replace("[container.create, volume.create, network.create]", "container.create"),
    peer: '{ "user": "alice", "gid": 1000, "groups": ["developers"] }',
    action: "container.create",
    attributes: '{ "dangers": ["HostConfig.Privileged"] }',
    accounts: ACCOUNTS,
  },
  {
    title: "Docker: one's own container",
    policy: DOCKER,
    edited: "",
    peer: '{ "user": "alice", "gid": 1000, "groups": ["developers"] }',
    action: "container.remove",
    attributes: '{ "owner": 1000, "dangers": [] }',
    accounts: ACCOUNTS,
  },
  {
    title: "D-Bus: a call of a method",
    policy: DBUS,
    edited: "",
    peer: '{ "user": "alice" }',
    action: "call org.example.Clock.Now",
    attributes: '{ "destination": ":1.7", "destinationNames": [":1.7", "org.example.Clock"] }',
    accounts: ACCOUNTS,
  },
  {
    title: "sudo: restart a service",
    policy: SUDO,
    edited: "",
    peer: '{ "user": "alice", "gid": 1000, "groups": ["adm"] }',
    action: "run",
    attributes:
      '{\n  "command": "/usr/bin/systemctl",\n  "arguments": "restart app.service",\n  "runasUser": "root"\n}',
    accounts: ACCOUNTS,
  },
  {
    title: "Connections: the unit is unknown",
    policy: CONNECTIONS,
    edited: "",
    peer: '{ "user": "www-data", "gid": 33, "groups": [] }',
    action: "",
    attributes: "",
    accounts: ACCOUNTS,
  },
];
