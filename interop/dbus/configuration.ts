/** Reads the configuration files of dbus-daemon(1): the rules of their policies, in the order of the daemon. */

import { lstatSync, opendirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { isId } from "../../core/credentials.ts";
import { type PolicyProblem, UcredError } from "../../core/errors.ts";
import { show } from "../../core/policy/document/shape.ts";
import { visible } from "../../core/text.ts";
import { parseXml, type XmlElement } from "../xml.ts";

/** Lookups on the system of the bus. */
export interface Lookups {
  /** Returns the id of an account with this name; `undefined` if there is none. */
  readonly idOf: (kind: "user" | "group", name: string) => number | undefined;
  /** Returns the name of the account with this id; `undefined` if there is none. */
  readonly nameOf: (kind: "user" | "group", id: number) => string | undefined;
  readonly isSelinuxEnabled: () => boolean;
}

/** An account in a configuration file. `name` is `undefined` if the file has its id. */
export interface Account {
  readonly name: string | undefined;
  readonly id: number;
}

/** The clients of the bus to which a rule applies. */
export type Subject =
  | { readonly kind: "default" | "mandatory" }
  | { readonly kind: "user"; readonly account: Account }
  /** The name is that of the group, also if the file has its id. */
  | { readonly kind: "group"; readonly id: number; readonly name: string }
  | { readonly kind: "console"; readonly atConsole: boolean };

/** What a rule decides about: connections, the ownership of names, messages sent or received. */
export type BusRuleKind = "connect" | "own" | "send" | "receive";

/** An element `<allow>` or `<deny>` without mistakes. */
export interface BusRule {
  readonly kind: BusRuleKind;
  readonly subject: Subject;
  readonly allow: boolean;
  /** Name → value. A wildcard `*` is missing, except in `user`, `group` and `own`. */
  readonly attributes: ReadonlyMap<string, string>;
  /** The account of a rule about connections; `undefined` for all accounts. */
  readonly account: Subject | undefined;
  /** "/etc/dbus-1/system.conf:7 <allow own="org.example"/>". */
  readonly title: string;
}

/** The rules in the files of a bus, and its user. */
export interface BusConfiguration {
  /** In the order in which dbus-daemon reads them. */
  readonly rules: readonly BusRule[];
  /** The account as which the daemon runs; `undefined`: the account that starts it. */
  readonly user: Account | undefined;
}

/**
 * Reads configuration files with all files that they include.
 *
 * @param files Absolute paths, or paths relative to the working directory.
 * @throws {UcredError} `ERR_UCRED_POLICY`, with all problems, if dbus-daemon would reject or ignore a part, or if
 * a policy cannot express it.
 */
export function readConfiguration(files: readonly string[], lookups: Lookups): BusConfiguration {
  const reader = new Reader(lookups);
  for (const file of files) reader.read(resolve(file));
  return reader.finish();
}

/** Elements without meaning for policies. */
const IGNORED = new Set([
  ...["type", "fork", "syslog", "keep_umask", "pidfile", "listen", "auth", "limit"],
  ...["servicedir", "servicehelper", "standard_session_servicedirs", "standard_system_servicedirs"],
]);

const MAX_FILES = 1000;
const MAX_RULES = 10_000;
const MAX_DEPTH = 32;
const MAX_PROBLEMS = 100;
/** The size of all files. The parser takes about a second for 600 kB. */
const MAX_BYTES = 16_000_000;
/** Maximum file descriptors of a message: DBUS_MAXIMUM_MESSAGE_UNIX_FDS of dbus-daemon. */
export const MAX_DESCRIPTORS = 33_554_432;

const NAME = "[A-Za-z_][A-Za-z0-9_]*";
const BUS_NAME = "[A-Za-z_-][A-Za-z0-9_-]*";
const oneOf = (...words: readonly string[]) => new RegExp(`^(?:${words.join("|")})$`);
const INTERFACE = new RegExp(`^${NAME}(?:\\.${NAME})+$`);
const MEMBER = new RegExp(`^${NAME}$`);
const PATH = /^\/(?:[A-Za-z0-9_]+(?:\/[A-Za-z0-9_]+)*)?$/;
const TYPE = oneOf("method_call", "method_return", "signal", "error");
const FLAG = oneOf("true", "false");
const COUNT = /^(?:0|[1-9]\d{0,7})$/;
const WELL_KNOWN = new RegExp(`^${BUS_NAME}(?:\\.${BUS_NAME})+$`);
const ANY_NAME = new RegExp(`${WELL_KNOWN.source}|^:[A-Za-z0-9_-]+(?:\\.[A-Za-z0-9_-]+)+$`);
/** A prefix may be a single word. */
const PREFIX = new RegExp(`^${BUS_NAME}(?:\\.${BUS_NAME})*$`);

interface AttributeSyntax {
  /** The values that a message or a name can have. */
  readonly value: RegExp;
  /** Whether `*` is a wildcard. Otherwise it is an ordinary character. */
  readonly isWildcard: boolean;
}

const syntax = (value: RegExp, isWildcard: boolean): AttributeSyntax => ({ value, isWildcard });

/** The attributes of `<allow>` and `<deny>`, except `user` and `group`. */
const ATTRIBUTES: { readonly [name: string]: AttributeSyntax } = {
  own: syntax(WELL_KNOWN, true),
  own_prefix: syntax(PREFIX, false),
  send_interface: syntax(INTERFACE, true),
  send_member: syntax(MEMBER, true),
  send_error: syntax(INTERFACE, true),
  send_destination: syntax(ANY_NAME, true),
  send_destination_prefix: syntax(PREFIX, false),
  send_path: syntax(PATH, true),
  send_type: syntax(TYPE, true),
  send_broadcast: syntax(FLAG, false),
  send_requested_reply: syntax(FLAG, false),
  receive_interface: syntax(INTERFACE, true),
  receive_member: syntax(MEMBER, true),
  receive_error: syntax(INTERFACE, true),
  receive_sender: syntax(ANY_NAME, true),
  receive_path: syntax(PATH, true),
  receive_type: syntax(TYPE, true),
  receive_requested_reply: syntax(FLAG, false),
  eavesdrop: syntax(FLAG, false),
  min_fds: syntax(COUNT, false),
  max_fds: syntax(COUNT, false),
  log: syntax(FLAG, false),
};

const CONNECT_ATTRIBUTES = ["user", "group"] as const;

class Reader {
  readonly #lookups: Lookups;
  readonly #rules: BusRule[] = [];
  readonly #problems: PolicyProblem[] = [];
  /** The real paths of the files that are being read: each includes the next one. */
  readonly #open: string[] = [];
  #files = 0;
  #bytes = 0;
  #file = "";
  #user: Account | undefined;

  constructor(lookups: Lookups) {
    this.#lookups = lookups;
  }

  finish(): BusConfiguration {
    const { length } = this.#problems;
    if (length === 0) return { rules: this.#rules, user: this.#user };
    const problems = this.#problems.slice(0, MAX_PROBLEMS);
    const lines = problems.map(({ file = "", line, column, message }) =>
      `${visible(file)}${line === undefined ? "" : `:${line}:${column}`}: ${visible(message)}`
    );
    const more = length > MAX_PROBLEMS ? `\n${length - MAX_PROBLEMS} more` : "";
    const message = `Cannot import the bus policy: ${lines.join("\n")}${more}`;
    const hint = "Correct these parts of the files, or write rules for them by hand";
    throw new UcredError("ERR_UCRED_POLICY", message, { hint, problems });
  }

  #problem(message: string, place?: { readonly line: number; readonly column: number }): void {
    const { line, column } = place ?? {};
    this.#problems.push({ message, path: [], file: this.#file, line, column });
  }

  read(file: string): void {
    const includer = this.#file;
    this.#file = file;
    try {
      this.#readFile(file);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      if (error instanceof UcredError && error.problems !== undefined) {
        this.#problems.push(...error.problems);
      } else this.#problem(error.message);
    }
    this.#file = includer;
  }

  #readFile(file: string): void {
    const path = realpathSync(file);
    if (this.#open.includes(path)) return this.#problem("the file includes itself");
    if (this.#open.length === MAX_DEPTH || ++this.#files > MAX_FILES) {
      return this.#problem(
        `there are more than ${MAX_FILES} files, or they include each other deeper than ${MAX_DEPTH} levels`,
      );
    }
    const stat = statSync(path);
    if (!stat.isFile()) return this.#problem("it is not a regular file");
    this.#bytes += stat.size;
    if (this.#bytes > MAX_BYTES) {
      return this.#problem(`the files have more than ${MAX_BYTES} bytes`);
    }
    const text = decode(readFileSync(path));
    if (text === undefined) return this.#problem("it is not in UTF-8");
    if (text.startsWith("<?xml") && !DECLARATION.test(text)) {
      return this.#problem("its declaration is not that of XML 1.0 in UTF-8");
    }
    const root = parseXml(text, file, "import the bus policy");
    if (root.name !== "busconfig") {
      return this.#problem(`the root element is <${root.name}>, not <busconfig>`, root);
    }
    this.#attributesOf(root, []);
    this.#requireNoText(root);
    this.#open.push(path);
    try {
      for (const child of root.children) this.#child(child, file);
    } finally {
      this.#open.pop();
    }
  }

  #child(element: XmlElement, file: string): void {
    const { name, content } = element;
    switch (name) {
      case "policy":
        return this.#policy(element);
      case "include":
        return this.#include(element, file);
      case "includedir":
        this.#attributesOf(element, []);
        this.#requireNoChildren(element);
        return this.#includeFolder(resolve(dirname(file), content), element);
      case "user":
        this.#requireNoChildren(element);
        this.#user = this.#account("user", content, element);
        return;
      case "allow_anonymous":
        return this.#problem("a policy cannot allow anonymous clients: they have no uid", element);
      case "apparmor":
        if (element.attributes.get("mode") === "required") {
          this.#problem("a policy cannot require AppArmor", element);
        }
        return this.#requireNoChildren(element);
      case "selinux":
        for (const child of element.children) {
          this.#problem("a policy cannot express the rules of SELinux", child);
        }
        return;
    }
    if (!IGNORED.has(name)) return this.#problem(`unknown element <${name}>`, element);
    this.#requireNoChildren(element);
  }

  #include(element: XmlElement, file: string): void {
    const names = ["ignore_missing", "if_selinux_enabled", "selinux_root_relative"];
    const attributes = this.#attributesOf(element, names);
    this.#requireNoChildren(element);
    for (const [name, value] of attributes) {
      if (value !== "yes" && value !== "no") {
        return this.#problem(`${name} must be yes or no, not ${show(value)}`, element);
      }
    }
    const is = (name: string) => attributes.get(name) === "yes";
    if (is("if_selinux_enabled") || is("selinux_root_relative")) {
      if (is("if_selinux_enabled") && !this.#lookups.isSelinuxEnabled()) return;
      return this.#problem("a policy cannot express the rules of SELinux", element);
    }
    const path = resolve(dirname(file), element.content);
    if (element.content === "") return this.#problem("<include> has no path", element);
    if (isMissing(path)) {
      if (!is("ignore_missing")) this.#problem(`there is no file ${show(path)}`, element);
      return;
    }
    this.read(path);
  }

  /** Reads the files in the order of the folder, as dbus-daemon does. */
  #includeFolder(path: string, element: XmlElement): void {
    if (element.content === "") return this.#problem("<includedir> has no path", element);
    if (isMissing(path)) return;
    try {
      for (const name of namesIn(path)) {
        if (name.endsWith(".conf")) this.read(`${path}/${name}`);
      }
    } catch (error) {
      this.#problem((error as Error).message, element);
    }
  }

  #policy(element: XmlElement): void {
    const names = ["context", "user", "group", "at_console"];
    const [[name, value] = ["", ""], ...others] = this.#attributesOf(element, names);
    this.#requireNoText(element);
    if (name === "" || others.length > 0) {
      return this.#problem(`<policy> must have exactly one of ${names.join(", ")}`, element);
    }
    const subject = this.#subject(name, value, element);
    if (subject === undefined) return;
    for (const child of element.children) {
      if (child.name !== "allow" && child.name !== "deny") {
        this.#problem(`unknown element <${child.name}> in <policy>`, child);
        continue;
      }
      const rule = this.#rule(child, subject);
      if (rule === undefined) continue;
      if (this.#rules.length === MAX_RULES) {
        return this.#problem(`there are more than ${MAX_RULES} rules`, child);
      }
      this.#rules.push(rule);
    }
  }

  #subject(name: string, value: string, element: XmlElement): Subject | undefined {
    switch (name) {
      case "context":
        if (value === "default" || value === "mandatory") return { kind: value };
        break;
      case "at_console":
        if (FLAG.test(value)) return { kind: "console", atConsole: value === "true" };
        break;
      default:
        return this.#accountSubject(name as "user" | "group", value, element);
    }
    this.#problem(`<policy> cannot have ${name}=${show(value)}`, element);
    return undefined;
  }

  #accountSubject(
    kind: "user" | "group",
    value: string,
    element: XmlElement,
  ): Subject | undefined {
    const account = this.#account(kind, value, element);
    if (account === undefined) return undefined;
    if (kind === "user") return { kind, account };
    const { id, name = this.#lookups.nameOf("group", id)! } = account;
    return { kind, id, name };
  }

  /** Resolves an account: dbus-daemon ignores rules about accounts that it does not find. */
  #account(kind: "user" | "group", text: string, element: XmlElement): Account | undefined {
    const { idOf, nameOf } = this.#lookups;
    if (/^(?:0|[1-9]\d{0,9})$/.test(text)) {
      const id = Number(text);
      const name = isId(id) ? nameOf(kind, id) : undefined;
      // Two groups may have one id: the policy has the name.
      const isKnown = name !== undefined && (kind === "user" || idOf(kind, name) === id);
      if (isKnown) return { name: undefined, id };
    } else if (/^(?:[-+\s]|0[0-9x])/i.test(text)) {
      this.#problem(`dbus-daemon may read the ${kind} ${show(text)} as another number`, element);
      return undefined;
    } else {
      const id = idOf(kind, text);
      if (id !== undefined) return { name: text, id };
    }
    this.#problem(`there is no ${kind} ${show(text)} on this system`, element);
    return undefined;
  }

  #rule(element: XmlElement, subject: Subject): BusRule | undefined {
    this.#requireNoChildren(element);
    this.#requireNoText(element);
    const found = this.#attributesOf(element, [...Object.keys(ATTRIBUTES), ...CONNECT_ATTRIBUTES]);
    const kind = kindOf(found);
    const problem = typeof kind === "object" ? kind.problem : problemIn(found, kind, subject);
    if (problem !== undefined || typeof kind === "object") {
      this.#problem(problem ?? "", element);
      return undefined;
    }
    let account: Subject | undefined;
    if (kind === "connect") {
      const [[name, value] = ["", ""]] = found;
      if (value !== "*") {
        account = this.#accountSubject(name as "user" | "group", value, element);
        if (account === undefined) return undefined;
      }
    }
    const attributes = new Map(
      [...found].filter(([name, value]) =>
        value !== "*" || name === "own" || ATTRIBUTES[name] === undefined
      ),
    );
    const written = [...found].map(([name, value]) => ` ${name}="${value}"`).join("");
    const title = `${visible(this.#file)}:${element.line} <${element.name}${written}/>`;
    return { kind, subject, allow: element.name === "allow", attributes, account, title };
  }

  /** The attributes, without those that an element cannot have: these are problems. */
  #attributesOf(element: XmlElement, known: readonly string[]): ReadonlyMap<string, string> {
    const entries = [...element.attributes].filter(([name]) => {
      if (known.includes(name)) return true;
      this.#problem(`<${element.name}> cannot have the attribute ${show(name)}`, element);
      return false;
    });
    return new Map(entries);
  }

  #requireNoChildren({ name, children }: XmlElement): void {
    for (const child of children) {
      this.#problem(`<${name}> cannot have the element <${child.name}>`, child);
    }
  }

  #requireNoText(element: XmlElement): void {
    if (element.text !== "") this.#problem(`<${element.name}> cannot have text`, element);
  }
}

const DECLARATION =
  /^<\?xml\s+version\s*=\s*(?:"1\.0"|'1\.0')(?:\s+encoding\s*=\s*(?:"utf-8"|'utf-8'))?(?:\s+standalone\s*=\s*(?:"(?:yes|no)"|'(?:yes|no)'))?\s*\?>/i;

function decode(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** Whether there is certainly no such file. A dangling link counts as a file, and causes an error later. */
function isMissing(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) === undefined;
}

/** The names in a folder, in the order in which the file system lists them. */
function namesIn(path: string): readonly string[] {
  const folder = opendirSync(path);
  try {
    const names: string[] = [];
    for (let entry = folder.readSync(); entry !== null; entry = folder.readSync()) {
      names.push(entry.name);
    }
    return names;
  } finally {
    folder.closeSync();
  }
}

/** Returns the kind of a rule, or why dbus-daemon rejects this combination of attributes. */
function kindOf(
  attributes: ReadonlyMap<string, string>,
): BusRuleKind | { readonly problem: string } {
  const names = [...attributes.keys()];
  const having = (prefix: string) => names.some((name) => name.startsWith(prefix));
  const kinds: BusRuleKind[] = [];
  if (having("send_")) kinds.push("send");
  if (having("receive_") || (!having("send_") && attributes.has("eavesdrop"))) {
    kinds.push("receive");
  }
  for (const name of ["own", "own_prefix"]) if (attributes.has(name)) kinds.push("own");
  for (const name of CONNECT_ATTRIBUTES) if (attributes.has(name)) kinds.push("connect");
  const [kind, ...others] = kinds;
  if (kind === undefined) {
    return { problem: "a rule must have an attribute about names, messages or connections" };
  }
  if (others.length > 0) return { problem: `a rule cannot combine ${names.join(", ")}` };
  return kind;
}

const DIRECTIONLESS = ["eavesdrop", "min_fds", "max_fds"];

/** Returns why a rule has no meaning for dbus-daemon or for a policy; `undefined` if it has one. */
function problemIn(
  attributes: ReadonlyMap<string, string>,
  kind: BusRuleKind,
  subject: Subject,
): string | undefined {
  const has = (name: string) => attributes.has(`${kind}_${name}`);
  for (const [name, value] of attributes) {
    const known = ATTRIBUTES[name];
    if (known === undefined) continue; // user or group
    if (known.isWildcard && value === "*") continue;
    if (!known.value.test(value) || value.length > 255 && known.value !== PATH) {
      const star = value.includes("*") ? ": the star is no wildcard there" : "";
      return `no ${name.replaceAll("_", " ")} can be ${show(value)}${star}`;
    }
  }
  const isMessage = kind === "send" || kind === "receive";
  if (!isMessage && DIRECTIONLESS.some((name) => attributes.has(name))) {
    return "only rules about messages have eavesdrop, min_fds and max_fds";
  }
  if (attributes.has("log") && kind !== "send") {
    return "log has an effect only on rules about sending";
  }
  if (kind === "connect" && subject.kind !== "default" && subject.kind !== "mandatory") {
    return "a rule about connections has no effect outside of <policy context>";
  }
  if (!isMessage) return undefined;
  if (has("member") && !has("interface") && !has("path")) {
    return `${kind}_member requires ${kind}_interface or ${kind}_path`;
  }
  if (has("error") && (has("interface") || has("member"))) {
    return `${kind}_error excludes ${kind}_interface and ${kind}_member`;
  }
  if (has("destination") && has("destination_prefix")) {
    return "send_destination excludes send_destination_prefix";
  }
  const { min_fds: least = "0", max_fds: most = String(MAX_DESCRIPTORS) } = Object.fromEntries(
    attributes,
  );
  if (Number(most) > MAX_DESCRIPTORS || Number(least) > Number(most)) {
    return `no message has ${least} to ${most} file descriptors`;
  }
  const isBroadcast = attributes.get("send_broadcast") === "true";
  const { send_destination: name = "*", send_type: type = "*" } = Object.fromEntries(attributes);
  if (isBroadcast && (name !== "*" || !["*", "signal"].includes(type))) {
    return "no broadcast matches the rule";
  }
  return undefined;
}
