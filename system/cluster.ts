/** Reports whether this process is a worker of node:cluster, for servers. */

export { isClusterWorker } from "../adapters/builtins.ts";
