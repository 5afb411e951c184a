/** The state of the playground, and its text in the fragment of a URL. */

/** The texts of all fields. */
export interface State {
  readonly policy: string;
  /** The second policy, for a comparison. */
  readonly edited: string;
  readonly peer: string;
  readonly action: string;
  readonly attributes: string;
  readonly accounts: string;
}

export const FIELDS = ["policy", "edited", "peer", "action", "attributes", "accounts"] as const;

/** The beginning of a fragment. */
export const PREFIX = "#v1.";

/** Maximum length of a fragment, in characters. */
const MAX_FRAGMENT = 100_000;

/** Maximum length of the state in a fragment, in bytes. A short fragment can decompress to gigabytes. */
const MAX_STATE_BYTES = 500_000;

/** Returns the fragment for a state. */
export async function fragmentOf(state: State): Promise<string> {
  const fields = Object.fromEntries(FIELDS.map((name) => [name, state[name]]));
  const bytes = new TextEncoder().encode(JSON.stringify(fields));
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  const compressed = new Uint8Array(await new Response(stream).arrayBuffer());
  let binary = "";
  for (const byte of compressed) binary += String.fromCharCode(byte);
  return PREFIX + btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/**
 * Reads a fragment. It may come from a stranger: only known fields are read, and each must be a text.
 *
 * @throws {Error} If the fragment is too long, or not a state.
 */
export async function stateOf(fragment: string): Promise<State> {
  if (!fragment.startsWith(PREFIX)) throw new Error("it has another format");
  if (fragment.length > MAX_FRAGMENT) throw new Error("it is too long");
  const base64 = fragment.slice(PREFIX.length).replaceAll("-", "+").replaceAll("_", "/");
  const compressed = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([compressed]).stream()
    .pipeThrough(new DecompressionStream("deflate-raw"));
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  for (const reader = stream.getReader();;) {
    const { done, value } = await reader.read();
    if (done) break;
    length += value.length;
    if (length > MAX_STATE_BYTES) {
      await reader.cancel();
      throw new Error("it is too long");
    }
    parts.push(value);
  }
  const text = await new Blob(parts).text();
  const fields: unknown = JSON.parse(text);
  const own = (name: string): string => {
    const value = typeof fields === "object" && fields !== null && Object.hasOwn(fields, name)
      ? (fields as { readonly [name: string]: unknown })[name]
      : undefined;
    if (typeof value !== "string") throw new Error(`it has no text "${name}"`);
    return value;
  };
  return Object.fromEntries(FIELDS.map((name) => [name, own(name)])) as unknown as State;
}
