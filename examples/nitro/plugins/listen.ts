import { defineNitroPlugin } from "nitro/runtime";
import process from "node:process";
import { serve } from "../../../servers/http.ts"; // "ucred/http"
import { policy } from "../../servers/policy.ts";

const where = process.env["LISTEN_FDS"] === undefined
  ? { path: process.argv[2] ?? "app.sock", mode: 0o666 }
  : { systemd: true } as const;

export default defineNitroPlugin((app) => {
  void serve({ ...where, policy, fetch: (request) => app.fetch(request) })
    .then(({ path }) => console.log(`Listening at ${path}`));
});
