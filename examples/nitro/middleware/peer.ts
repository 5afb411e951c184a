import { defineHandler } from "nitro/h3";
import { peerOf } from "../../../servers/http.ts"; // "ucred/http"

// Throws for a request that has no peer: the response is 500.
export default defineHandler(({ req }) => void peerOf(req));
