/**
 * `ucred/systemd`: notifications to the service manager.
 *
 * @module
 */

export { notify } from "../system/sd_notify.ts";
