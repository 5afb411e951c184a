/** The vocabulary `docker`: what policies about requests to the engine can name. */

import { defineVocabulary, type Vocabulary } from "../../core/policy/document/vocabulary.ts";

const ACTIONS = {
  "container.list": "Lists containers.",
  "container.create": "Creates a container.",
  "container.inspect": "Reads the configuration of a container, with its environment.",
  "container.logs": "Reads the output of a container.",
  "container.top": "Lists the processes of a container.",
  "container.stats": "Reads the resource usage of a container.",
  "container.changes": "Lists the changed files of a container.",
  "container.export": "Reads all files of a container.",
  "container.archive.read": "Reads files of a container: docker cp from it.",
  "container.archive.write": "Writes files into a container, as root: docker cp to it.",
  "container.start": "Starts a container.",
  "container.stop": "Stops a container.",
  "container.restart": "Restarts a container.",
  "container.kill": "Sends a signal to a container.",
  "container.pause": "Pauses a container, or resumes it.",
  "container.wait": "Waits for a container to end.",
  "container.rename": "Renames a container.",
  "container.update": "Changes resource limits and the restart policy of a container.",
  "container.remove": "Removes a container.",
  "container.prune": "Removes all stopped containers.",
  "container.attach": "Connects to the input and output of a container.",
  "container.exec": "Prepares a command in a container: docker exec.",
  "container.resize": "Sets the terminal size of a container.",
  "container.checkpoint": "Creates, lists or removes checkpoints of a container.",
  "container.commit": "Makes an image of a container.",
  "container.join":
    "Uses namespaces, volumes or links of a container in a new one; decided beside container.create.",
  "exec.inspect": "Reads the state of an exec.",
  "exec.start": "Runs the command of an exec.",
  "exec.resize": "Sets the terminal size of an exec.",
  "image.list": "Lists images.",
  "image.inspect": "Reads the configuration of an image.",
  "image.history": "Reads how an image was built.",
  "image.search": "Searches the registry.",
  "image.distribution": "Reads a manifest from a registry.",
  "image.export": "Reads images as a tar archive: docker save.",
  "image.pull": "Pulls an image from a registry.",
  "image.import": "Makes an image of a tar archive, from the request or from a URL.",
  "image.load": "Loads images from a tar archive.",
  "image.push": "Pushes an image to a registry.",
  "image.tag": "Gives an image another name, which may replace one that others use.",
  "image.remove": "Removes an image.",
  "image.prune": "Removes unused images.",
  "build": "Builds an image with the classic builder.",
  "build.session": "Uses BuildKit, whose requests are not judged.",
  "build.prune": "Removes the cache of builds.",
  "build.cancel": "Cancels a build.",
  "volume.list": "Lists volumes.",
  "volume.inspect": "Reads the configuration of a volume.",
  "volume.create": "Creates a volume.",
  "volume.update": "Changes a volume of a cluster.",
  "volume.remove": "Removes a volume.",
  "volume.prune": "Removes unused volumes.",
  "volume.use": "Mounts an existing volume into a new container; decided beside container.create.",
  "network.list": "Lists networks.",
  "network.inspect": "Reads a network, with the addresses of its containers.",
  "network.create": "Creates a network.",
  "network.connect":
    "Connects a container to a network; for a new container decided beside container.create.",
  "network.disconnect": "Disconnects a container from a network.",
  "network.remove": "Removes a network.",
  "network.prune": "Removes unused networks.",
  "system.ping": "Tests that the engine answers.",
  "system.version": "Reads the version of the engine.",
  "system.info": "Reads the configuration of the engine.",
  "system.df": "Reads disk usage, with all containers and volumes.",
  "system.events": "Reads events.",
  "system.auth": "Sends credentials to a registry.",
  "system.debug": "Reads internals of the engine.",
  "plugin.list": "Lists plugins.",
  "plugin.inspect": "Reads the configuration of a plugin.",
  "plugin.write": "Installs, changes or removes plugins, which run as root.",
  "swarm.inspect": "Reads the swarm, with its join tokens.",
  "swarm.unlockkey": "Reads the key that unlocks managers.",
  "swarm.write": "Changes the swarm or its services, nodes, secrets and configs.",
  "service.list": "Lists services.",
  "service.inspect": "Reads a service.",
  "service.logs": "Reads the output of a service.",
  "task.list": "Lists tasks.",
  "task.inspect": "Reads a task.",
  "task.logs": "Reads the output of a task.",
  "node.list": "Lists nodes.",
  "node.inspect": "Reads a node.",
  "secret.list": "Lists the names of secrets.",
  "secret.inspect": "Reads the name and labels of a secret.",
  "config.list": "Lists configs with their contents.",
  "config.inspect": "Reads a config with its contents.",
  "podman.read": "Reads by podman's own API: GET of a path below /libpod/.",
} as const;

type DockerAction = keyof typeof ACTIONS;

const all = Object.keys(ACTIONS) as DockerAction[];
const startingWith = (...prefixes: string[]) =>
  all.filter((action) => prefixes.some((prefix) => action.startsWith(prefix)));

/** Actions on one container, and its creation. */
const ofContainer = startingWith("container.", "exec.")
  .filter((action) => action !== "container.list" && action !== "container.prune");

/** The vocabulary of requests to Docker's engine. */
export const dockerVocabulary: Vocabulary = defineVocabulary({
  name: "docker",
  actions: ACTIONS,
  attributes: {
    name: { type: "text", description: "The name of the object; null: the engine chooses one." },
    id: { type: "text", description: "The full id of an existing object." },
    owner: {
      type: "id",
      description:
        "The uid that created the object through the guard. Unknown for other objects and new ones.",
    },
    labels: {
      type: "parameters",
      description: "The labels of the object by name, as lists of one value.",
      secret: true,
    },
    image: {
      type: "text",
      description: "The image, as the request names it, or its id.",
      actions: [...ofContainer, ...startingWith("image.")],
    },
    platform: {
      type: "text",
      description: "The requested platform; null: the engine's own.",
      actions: ["container.create", "image.pull", "image.import", "image.push", "build"],
    },
    tags: {
      type: "texts",
      description: "The names that the image gets.",
      actions: ["build", "image.tag", "image.import", "container.commit"],
    },
    dangers: {
      type: "texts",
      description: "Paths of the fields that reach the host or other containers: HostConfig.Binds.",
      essential: [
        ...["container.create", "container.exec", "container.update", "container.start"],
        ...["volume.create", "network.create", "network.connect", "build"],
      ],
    },
    privileged: {
      type: "boolean",
      description: "Whether the container, or the exec, has all rights of root on the host.",
      actions: ofContainer,
    },
    user: {
      type: "id",
      description: "The uid that commands run as. Unknown if it is a name, or the image's.",
      actions: ofContainer,
    },
    group: {
      type: "id",
      description: "The gid that commands run as. Unknown if it is a name, or the image's.",
      actions: ofContainer,
    },
    command: {
      type: "texts",
      description: "The command of an exec and its arguments.",
      actions: ["container.exec", "exec.start"],
      secret: true,
    },
    path: {
      type: "text",
      description: "The path in the container, or below /libpod/.",
      actions: ["container.archive.read", "container.archive.write", "podman.read"],
    },
    binds: {
      type: "texts",
      description: "The paths of the host that are mounted.",
      actions: ofContainer,
    },
    writableBinds: {
      type: "texts",
      description: "The paths of the host that are mounted and not read-only.",
      actions: ofContainer,
    },
    mounts: {
      type: "texts",
      description:
        "All mounts as TYPE:SOURCE, such as bind:/srv, volume:data, tmpfs: and image:app.",
      actions: ofContainer,
    },
    volumeDriver: {
      type: "text",
      description: "The driver of new volumes; null: the engine's own.",
      actions: ofContainer,
    },
    devices: {
      type: "texts",
      description: "Devices of the host: paths, rules, and requests such as nvidia:gpu.",
      actions: ofContainer,
    },
    capAdd: {
      type: "texts",
      description: "Added capabilities, in upper case without CAP_.",
      actions: ofContainer,
    },
    capDrop: {
      type: "texts",
      description: "Dropped capabilities, in upper case without CAP_.",
      actions: ofContainer,
    },
    securityOpt: {
      type: "texts",
      description: "Security options as NAME=VALUE.",
      actions: ofContainer,
    },
    pidMode: { type: "text", description: "The pid namespace, or default.", actions: ofContainer },
    ipcMode: { type: "text", description: "The IPC namespace, or default.", actions: ofContainer },
    utsMode: { type: "text", description: "The UTS namespace, or default.", actions: ofContainer },
    usernsMode: {
      type: "text",
      description: "The user namespace, or default.",
      actions: ofContainer,
    },
    cgroupnsMode: {
      type: "text",
      description: "The cgroup namespace, or default.",
      actions: ofContainer,
    },
    networkMode: {
      type: "text",
      description: "The network: default, bridge, host, none, container:NAME, or a name.",
      actions: [...ofContainer, "build"],
    },
    cgroupParent: {
      type: "text",
      description: "The parent cgroup; null: the engine's own.",
      actions: [...ofContainer, "build"],
    },
    runtime: {
      type: "text",
      description: "The OCI runtime; null: the engine's default.",
      actions: ofContainer,
    },
    sysctls: {
      type: "texts",
      description: "Kernel parameters as NAME=VALUE.",
      actions: ofContainer,
    },
    groupAdd: {
      type: "texts",
      description: "Supplementary groups of the container.",
      actions: ofContainer,
    },
    publishedPorts: {
      type: "texts",
      description:
        "Published ports as IP:HOST-PORT:PORT/PROTOCOL; HOST-PORT 0: the engine chooses it.",
      actions: ofContainer,
    },
    restartPolicy: {
      type: "text",
      description: "The restart policy: no, always, on-failure or unless-stopped.",
      actions: ofContainer,
    },
    logDriver: {
      type: "text",
      description: "The log driver; null: the engine's default.",
      actions: ofContainer,
    },
    driver: {
      type: "text",
      description: "The driver of a volume (default local) or network (default bridge).",
      actions: startingWith("volume.", "network."),
    },
    driverOpts: {
      type: "texts",
      description: "Options of the driver as NAME=VALUE.",
      actions: startingWith("volume.", "network."),
      secret: true,
    },
    remote: {
      type: "text",
      description: "The URL that the engine reads the context or image from; null: none.",
      actions: ["build", "image.import"],
      secret: true,
    },
  },
});
