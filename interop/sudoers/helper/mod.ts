/** A privileged helper and its client. */

export {
  type AllowedCommand,
  type CommandLimits,
  type CommandRecord,
  createHelper,
  type HelperOptions,
} from "./helper.ts";
export { type CommandControls, type CommandExit, runCommand, type RunOptions } from "./client.ts";
export type { TerminalSize } from "../../../system/pseudo_terminal.ts";
export type { ForwardedSignal } from "./request.ts";
