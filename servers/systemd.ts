/**
 * Notifications to the service manager: `ucred/systemd`.
 *
 * @module
 */

export { notify } from "../system/sd_notify.ts";
