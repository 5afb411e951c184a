import { defineHandler } from "nitro/h3";
import { decisionOf, peerOf } from "../../../servers/http.ts"; // "ucred/http"

export default defineHandler(({ req }) => {
  const { uid, user = uid } = peerOf(req);
  return `welcome, ${user}: ${decisionOf(req).grants}\n`;
});
