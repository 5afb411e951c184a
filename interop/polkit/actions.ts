/** Polkit's actions: the `.policy` files that declare them. */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { UcredError } from "../../core/errors.ts";
import { show } from "../../core/policy/document/shape.ts";
import { fileError } from "../file_error.ts";
import { parseXml, type XmlElement } from "../xml.ts";
import { IMPLICIT, type ImplicitAuthorization, isActionId } from "./action_id.ts";

/** What polkit does without a rule, by the session of the client. */
export interface ActionDefaults {
  /** Clients outside of local sessions: services, and logins over a network. */
  readonly any: ImplicitAuthorization;
  /** Clients in local sessions that are not active. */
  readonly inactive: ImplicitAuthorization;
  /** Clients in active local sessions. */
  readonly active: ImplicitAuthorization;
}

/** An action. */
export interface PolkitAction {
  /** "org.example.restart" */
  readonly id: string;
  /** A description of the action for administrators. */
  readonly description: string;
  /** The message of the password dialog. */
  readonly message: string;
  /** The vendor of the action; missing if the file has none. */
  readonly vendor?: string;
  /** What polkit does without a rule. */
  readonly defaults: ActionDefaults;
  /** Annotations: `org.freedesktop.policykit.exec.path`, `org.freedesktop.policykit.owner` and others. */
  readonly annotations: { readonly [key: string]: string };
  /** The path of the file. */
  readonly file: string;
  /** The line of the element, from 1. */
  readonly line: number;
}

/** The folders in which polkitd looks for actions, polkit(8). Older versions know only the last. */
export const ACTION_FOLDERS: readonly string[] = [
  "/etc/polkit-1/actions",
  "/run/polkit-1/actions",
  "/usr/local/share/polkit-1/actions",
  "/usr/share/polkit-1/actions",
];

/**
 * Parses a `.policy` file of polkit.
 *
 * @param file The name of the file, for errors.
 * @returns The actions in the order of the file. Translations are left out.
 * @throws {UcredError} `ERR_UCRED_POLICY` with file, line and column if it is no such file, has an unknown
 * element, or an action without a message, or declares an action twice.
 *
 * @example
 * ```ts
 * import { parseActions } from "ucred/polkit";
 *
 * const [action] = parseActions(
 *   `<policyconfig>
 *     <action id="org.example.restart">
 *       <description>Restart the example service</description>
 *       <message>Authentication is required to restart the example service</message>
 *       <defaults><allow_active>auth_admin_keep</allow_active></defaults>
 *     </action>
 *   </policyconfig>`,
 *   "org.example.policy",
 * );
 * console.log(action?.defaults.active); // auth_admin_keep
 * ```
 */
export function parseActions(text: string, file: string): readonly PolkitAction[] {
  const root = parseXml(text, file, WHAT);
  if (root.name !== "policyconfig") throw problem(file, root, "its root is not <policyconfig>");
  let vendor: string | undefined;
  const actions = new Map<string, PolkitAction>();
  for (const element of root.children) {
    switch (element.name) {
      case "vendor":
        vendor = element.text;
        break;
      case "vendor_url":
      case "icon_name":
        break;
      case "action": {
        const action = actionOf(element, file, vendor);
        const former = actions.get(action.id);
        if (former !== undefined) {
          throw problem(file, element, `${action.id} is declared in line ${former.line}, too`);
        }
        actions.set(action.id, action);
        break;
      }
      default:
        throw problem(file, element, `<policyconfig> has no element <${element.name}>`);
    }
  }
  return [...actions.values()];
}

const WHAT = "read polkit's actions";

function problem(file: string, place: XmlElement, message: string): UcredError {
  return fileError(WHAT, file, message, place);
}

function actionOf(element: XmlElement, file: string, vendor: string | undefined): PolkitAction {
  const id = element.attributes.get("id");
  if (!isActionId(id)) {
    throw problem(file, element, `an action requires an id such as "org.example.restart"`);
  }
  const texts: { [name: string]: string } = {};
  const annotations: { [key: string]: string } = Object.create(null);
  let defaults: ActionDefaults = { any: "no", inactive: "no", active: "no" };
  for (const child of element.children) {
    switch (child.name) {
      case "description":
      case "message":
        if (!child.attributes.has("xml:lang")) texts[child.name] = child.text;
        break;
      case "vendor":
        vendor = child.text;
        break;
      case "vendor_url":
      case "icon_name":
        break;
      case "annotate": {
        const key = child.attributes.get("key");
        if (key === undefined) throw problem(file, child, "<annotate> requires a key");
        annotations[key] = child.text;
        break;
      }
      case "defaults":
        defaults = defaultsOf(child, file);
        break;
      default:
        throw problem(file, child, `<action> has no element <${child.name}>`);
    }
  }
  const { description, message } = texts;
  if (description === undefined) throw problem(file, element, `${id} has no <description>`);
  if (message === undefined) throw problem(file, element, `${id} has no <message>`);
  return {
    id,
    description,
    message,
    ...(vendor !== undefined && { vendor }),
    defaults,
    annotations,
    file,
    line: element.line,
  };
}

function defaultsOf(element: XmlElement, file: string): ActionDefaults {
  const found = { any: "no", inactive: "no", active: "no" } as {
    -readonly [name in keyof ActionDefaults]: ImplicitAuthorization;
  };
  for (const child of element.children) {
    const name = child.name.replace(/^allow_/, "");
    if (name === child.name || !Object.hasOwn(found, name)) {
      throw problem(file, child, `<defaults> has no element <${child.name}>`);
    }
    if (!IMPLICIT.includes(child.text)) {
      const message = `${show(child.text)} is none of ${IMPLICIT.join(", ")}`;
      throw problem(file, child, message);
    }
    found[name as keyof ActionDefaults] = child.text as ImplicitAuthorization;
  }
  return found;
}

/**
 * Reads the actions of this system.
 *
 * @param folders Absolute paths. Default: the folders of polkitd. An action in an earlier folder replaces
 * one in a later folder; a folder that does not exist has none.
 * @returns Sorted by id.
 * @throws {UcredError} As {@link parseActions}; and `ERR_UCRED_PERMISSION` if a file cannot be read.
 */
export function readActions(folders: readonly string[] = ACTION_FOLDERS): readonly PolkitAction[] {
  const actions = new Map<string, PolkitAction>();
  for (const file of folders.flatMap(policyFilesIn)) {
    for (const action of parseActions(read(file), file)) {
      if (!actions.has(action.id)) actions.set(action.id, action);
    }
  }
  return [...actions.values()].sort(({ id: one }, { id: other }) => one < other ? -1 : 1);
}

function policyFilesIn(folder: string): string[] {
  try {
    const names = readdirSync(folder).filter((name) => name.endsWith(".policy")).sort();
    return names.map((name) => join(folder, name));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw unreadable(folder, error);
  }
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw unreadable(file, error);
  }
}

function unreadable(path: string, cause: unknown): UcredError {
  const message = `Cannot ${WHAT}: ${path}: ${(cause as Error).message}`;
  return new UcredError("ERR_UCRED_PERMISSION", message, {
    hint: "Allow this process to read the file",
    cause,
  });
}

/** What {@link formatAction} writes. */
export type NewAction =
  & Pick<PolkitAction, "id" | "description" | "message">
  & Partial<Pick<PolkitAction, "vendor" | "defaults" | "annotations">>;

/**
 * Returns the `.policy` file of one action, to install as `/usr/share/polkit-1/actions/ID.policy`.
 *
 * @param action Without `defaults`, an administrator has to authenticate.
 * @throws {TypeError} If the id or a default is not one of polkit's.
 */
export function formatAction(action: NewAction): string {
  const { id, description, message, vendor, annotations = {} } = action;
  const { defaults = { any: "auth_admin", inactive: "auth_admin", active: "auth_admin_keep" } } =
    action;
  if (!isActionId(id)) throw new TypeError(`${show(id)} is no id of an action`);
  for (const value of Object.values(defaults)) {
    if (!IMPLICIT.includes(value)) {
      throw new TypeError(`${show(value)} is none of ${IMPLICIT.join(", ")}`);
    }
  }
  const annotated = Object.entries(annotations).map(([key, value]) =>
    `    <annotate key="${escape(key)}">${escape(value)}</annotate>\n`
  );
  return `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/PolicyKit/1/policyconfig.dtd">
<policyconfig>
${vendor === undefined ? "" : `  <vendor>${escape(vendor)}</vendor>\n`}  <action id="${id}">
    <description>${escape(description)}</description>
    <message>${escape(message)}</message>
    <defaults>
      <allow_any>${defaults.any}</allow_any>
      <allow_inactive>${defaults.inactive}</allow_inactive>
      <allow_active>${defaults.active}</allow_active>
    </defaults>
${annotated.join("")}  </action>
</policyconfig>
`;
}

const ENTITIES: { readonly [character: string]: string } = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
};

const escape = (text: string) => text.replaceAll(/[&<>"]/g, (character) => ENTITIES[character]!);
