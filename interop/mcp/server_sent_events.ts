/** Reads a stream of server-sent events: WHATWG HTML, 9.2.6. */

/** Returns the data of each event. Types and ids are ignored. */
export async function* eventsOf(body: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder(); // drops a byte order mark
  let rest: string[] = [];
  let data: string[] = [];
  let endedWithReturn = false;
  for await (const bytes of body) {
    let text = decoder.decode(bytes, { stream: true });
    if (endedWithReturn && text.startsWith("\n")) text = text.slice(1);
    if (text !== "") endedWithReturn = text.endsWith("\r");
    const [first = "", ...others] = text.split(/\r\n|\r|\n/);
    rest.push(first);
    for (const other of others) {
      const line = rest.join("");
      rest = [other];
      if (line === "") {
        if (data.length > 0) yield data.join("\n");
        data = [];
      } else if (line === "data" || line.startsWith("data:")) {
        data.push(line.slice("data:".length).replace(/^ /, ""));
      }
    }
  }
}
