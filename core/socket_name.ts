/** Converts between socket addresses and their written form, which is `@name` for the abstract name "\0name". */

/** Converts `@name` to the abstract name "\0name"; a path stays as it is. */
export function addressOf(name: string): string {
  return name.startsWith("@") ? `\0${name.slice(1)}` : name;
}

/** Converts the abstract name "\0name" to `@name`; a path stays as it is. */
export function displayName(address: string): string {
  return address.startsWith("\0") ? `@${address.slice(1)}` : address;
}
