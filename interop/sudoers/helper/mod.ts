/** A privileged helper and its client. */

export {
  type AllowedCommand,
  type CommandLimits,
  type CommandRecord,
  createHelper,
  type HelperOptions,
} from "./helper.ts";
export { type CommandExit, runCommand, type RunOptions } from "./client.ts";
export type { ForwardedSignal } from "./request.ts";
