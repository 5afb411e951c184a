/** Writes guard/http/llhttp_wasm.ts: llhttp's WebAssembly build, as the pinned version of undici ships it. */

import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";

/** The version in undici's source. The WebAssembly build does not contain it. */
const LLHTTP_VERSION = "9.3.1";

const require = createRequire(import.meta.url);
const { version } = require("undici/package.json");
const bytes: Uint8Array = require("undici/lib/llhttp/llhttp-wasm.js");

const text = `/**
 * @license
 * llhttp ${LLHTTP_VERSION}, the HTTP parser of Node, as WebAssembly in base64. \`node tools/llhttp.ts\` wrote this
 * file from undici ${version}, without any change.
 *
 * llhttp is Copyright Fedor Indutny, 2018, under the MIT licence:
 *
 * Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
 * associated documentation files (the "Software"), to deal in the Software without restriction, including
 * without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
 * copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the
 * following conditions: The above copyright notice and this permission notice shall be included in all
 * copies or substantial portions of the Software.
 *
 * THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT
 * LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO
 * EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER
 * IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR
 * THE USE OR OTHER DEALINGS IN THE SOFTWARE.
 */
export const LLHTTP_VERSION = "${LLHTTP_VERSION}";

/** The module. */
export const LLHTTP_WASM: string =
  "${Buffer.from(bytes).toString("base64")}";
`;
writeFileSync(new URL("../guard/http/llhttp_wasm.ts", import.meta.url), text);
