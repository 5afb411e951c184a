/** Converts sudoers files, as cvtsudoers(1) exports them, to policies with `about: sudo`. */

import { Buffer } from "node:buffer";
import { realpathSync } from "node:fs";
import { type PolicyProblem, UcredError } from "../../core/errors.ts";
import { isObject } from "../../core/policy/document/shape.ts";
import type {
  PolicyDocument,
  RuleDocument,
  TestDocument,
} from "../../core/policy/document/types.ts";
import { visible } from "../../core/text.ts";
import { accountName } from "../../system/accounts.ts";
import { matchCommand, type ResolveFolder } from "./commands.ts";
import type { SudoersExport } from "./cvtsudoers.ts";
import { ignoredDefaults, OPTION_GRANTS } from "./defaults.ts";
import { all, any, type Fields, type Formula, not } from "../formula.ts";

/** Lookups on the system of the sudoers file. */
export interface Lookups {
  /** Returns the name of a group; `undefined` if there is none. */
  readonly groupName: (gid: number) => string | undefined;
  readonly resolveFolder: ResolveFolder;
}

const LOOKUPS: Lookups = {
  groupName: (gid) => accountName("group", gid),
  resolveFolder: (folder) => {
    try {
      return realpathSync(folder);
    } catch {
      return folder; // a folder that does not exist has no commands
    }
  },
};

/**
 * Converts a sudoers file to a policy with `about: sudo`.
 *
 * sudo's last match becomes the first rule that matches. Tags become grants: `NOPASSWD`, `SETENV`, `NOEXEC`,
 * `INTERCEPT`, `FOLLOW`, `LOG_INPUT`, `LOG_OUTPUT`, `MAIL` and `NOMAIL`. The folders of commands are
 * resolved, and gids become names of groups, on this system.
 *
 * @param exported The exports of the file by cvtsudoers(1): see {@link readSudoers}.
 * @throws {UcredError} `ERR_UCRED_POLICY` if a policy cannot express a part of the file exactly, also one that
 * denies. `problems` lists the parts, with their lines if they are known.
 * @see {@link https://www.sudo.ws/docs/man/sudoers.man/ sudoers(5)}
 *
 * @example One command of one group
 * ```ts
 * import { importSudoers } from "ucred/sudoers";
 *
 * const json = JSON.stringify({
 *   User_Specs: [{
 *     User_List: [{ usergroup: "operators" }],
 *     Host_List: [{ hostname: "ALL" }],
 *     Cmnd_Specs: [{ Commands: [{ command: "/opt/app/bin/restart" }] }],
 *   }],
 * });
 * const sudoers = "%operators ALL = /opt/app/bin/restart\n";
 * console.log(importSudoers({ json, sudoers }).rules.at(-1)?.when?.group); // operators
 * ```
 */
export function importSudoers(exported: SudoersExport): PolicyDocument {
  return convertSudoers(exported, LOOKUPS);
}

/** Implements {@link importSudoers} with the lookups of any system. */
export function convertSudoers(exported: SudoersExport, lookups: Lookups): PolicyDocument {
  return new Conversion(exported, lookups).policy();
}

/** A member of a list of sudoers. */
interface Member {
  /** The key of JSON: "username", "usergroup" and so on. */
  readonly kind: string;
  readonly value: string | number;
  readonly isNegated: boolean;
  /** Whether it is in an alias. */
  readonly isAliased: boolean;
  /** Of a command: a condition on the digest of its file. */
  readonly digest: Formula;
}

/** A place in the file, for problems. */
interface Place {
  readonly path: PolicyProblem["path"];
  /** The user specification in words. */
  readonly title: string;
}

/** Words of sudoers that `cvtsudoers -f json` loses, or writes as JSON with errors. */
const LOST_WORDS =
  /(?<=[\s,():=])(NOTBEFORE|NOTAFTER|TIMEOUT|CWD|CHROOT|ROLE|TYPE|APPARMOR_PROFILE|PRIVS|LIMITPRIVS)=/g;

/** Each kind of alias: the key of members, and the key of definitions. */
const ALIASES: { readonly [kind: string]: string } = {
  useralias: "User_Aliases",
  runasalias: "Runas_Aliases",
  hostalias: "Host_Aliases",
  cmndalias: "Command_Aliases",
};

/** Kind of user → the sign before its name or id in sudoers. */
const SIGNS: { readonly [kind: string]: string } = {
  userid: "#",
  usergroup: "%",
  usergid: "%#",
  netgroup: "+",
};

/** Length of each digest, in bytes. */
const DIGEST_BYTES: { readonly [name: string]: number | undefined } = {
  sha224: 28,
  sha256: 32,
  sha384: 48,
  sha512: 64,
};

/** A list of digests before a command. */
const DIGEST_LIST = /(?:sha(?:224|256|384|512)\s*:\s*[A-Za-z0-9+/=]+[\s,]*)+/g;

/** Maximum depth of aliases within aliases. Deeper ones are a cycle, or hostile. */
const MAX_ALIAS_DEPTH = 32;

/** Maximum members of all lists after aliases are expanded: aliases of aliases multiply them. */
const MAX_MEMBERS = 100_000;

const GROUP_REQUESTED: Formula = { runasGroup: "**" };
const OWN_GROUP: Formula = { runasGroupIsOwn: true };
const SELF: Formula = { runasUid: "self" };

class Conversion {
  readonly #problems: PolicyProblem[] = [];
  readonly #lines: readonly string[];
  #defaults: { readonly [option: string]: boolean } = {};
  #data: Fields = {};
  #members = 0;

  readonly #exported: SudoersExport;
  readonly #lookups: Lookups;

  constructor(exported: SudoersExport, lookups: Lookups) {
    this.#exported = exported;
    this.#lookups = lookups;
    this.#lines = (exported.text ?? "").split("\n").map((line) =>
      line.trimStart().startsWith("#") ? "" : line
    );
  }

  policy(): PolicyDocument {
    try {
      return this.#convert();
    } catch (error) {
      if (!(error instanceof UnknownForm || error instanceof SyntaxError)) throw error;
      this.#problem(FILE, `the JSON is not that of cvtsudoers: ${error.message}`);
      throw this.#error();
    }
  }

  #convert(): PolicyDocument {
    this.#checkText();
    if (this.#problems.length > 0) throw this.#error();
    this.#data = fieldsOf(JSON.parse(this.#exported.json));
    for (const name of Object.keys(this.#data)) {
      if (name === "Defaults" || name === "User_Specs") continue;
      if (!Object.values(ALIASES).includes(name)) this.#problem(FILE, `unknown part ${name}`, name);
    }
    for (const [at, entry] of listOf(this.#data["Defaults"]).entries()) {
      this.#default(entry, { path: ["Defaults", at], title: "Defaults" });
    }
    const rules = listOf(this.#data["User_Specs"]).map((each, at) => this.#specification(each, at));
    if (this.#problems.length > 0) throw this.#error();
    // The last match of sudo is the first match of a policy.
    return {
      version: 1,
      about: "sudo",
      rules: [...GUARDS, ...rules.flat().toReversed()],
      tests: TESTS,
    };
  }

  #checkText(): void {
    // The lines of the export are wrapped. Arguments with these words are rejected, too.
    const text = this.#exported.sudoers.replaceAll("\\\n", "");
    for (const word of new Set(text.match(LOST_WORDS))) {
      this.#problem(FILE, `a policy cannot express ${word}`, word);
    }
    for (const [list] of text.matchAll(DIGEST_LIST)) {
      const names = list.match(/sha\d+(?=\s*:)/g)!;
      if (new Set(names).size < names.length) {
        this.#problem(FILE, "a command has two digests of one kind, of which JSON shows one", list);
      }
    }
    if (/\\[ \t]/.test(text)) {
      this.#problem(FILE, "the path of a command has a space, which JSON does not show", "\\ ");
    }
  }

  #default(entry: unknown, place: Place): void {
    const { Binding: binding, Options: options, ...others } = fieldsOf(entry);
    for (const name of Object.keys(others)) this.#problem(place, `unknown field ${name}`);
    for (const option of listOf(options)) {
      const { operation: _, ...named } = fieldsOf(option);
      for (const [name, value] of Object.entries(named)) {
        if (ignoredDefaults.has(name)) continue;
        if (
          binding === undefined && Object.hasOwn(OPTION_GRANTS, name) && typeof value === "boolean"
        ) {
          this.#defaults = { ...this.#defaults, [name]: value };
        } else {
          const what = binding === undefined ? "" : " for some users, hosts or commands";
          this.#problem(place, `a policy cannot express ${name}${what}`, name);
        }
      }
    }
  }

  #specification(entry: unknown, index: number): readonly RuleDocument[] {
    const { User_List: users, Host_List: hosts, Cmnd_Specs: commands, ...others } = fieldsOf(entry);
    const names = membersOf(users).map((user) => {
      const { negated, ...named } = fieldsOf(user);
      const [[kind = "", name] = []] = Object.entries(named);
      return `${negated === true ? "!" : ""}${SIGNS[kind] ?? ""}${name}`;
    });
    const title = `user specification ${index + 1} (${shorten(names.join(", "))})`;
    const place: Place = { path: ["User_Specs", index], title };
    for (const name of Object.keys(others)) this.#problem(place, `unknown field ${name}`);
    const when = this.#fold(users, false, place, (user) => this.#user(user, place));
    const onHost = this.#fold(membersOf(hosts), false, place, (host) => this.#host(host, place));
    return membersOf(commands).flatMap((each, at) =>
      this.#commands(each, { ...place, path: [...place.path, "Cmnd_Specs", at] })
        .map((rule, nth): RuleDocument | undefined => {
          const where = all(onHost, rule.where);
          if (when === false || where === false) return undefined; // it matches no request
          return {
            name: `${index + 1}.${at + 1}.${nth + 1} ${
              shorten(`${names.join(", ")}: ${rule.text}`)
            }`,
            ...(when === true ? {} : { when: when as NonNullable<RuleDocument["when"]> }),
            actions: rule.actions.length === 1 ? rule.actions[0]! : rule.actions,
            ...(where === true ? {} : { where: where as NonNullable<RuleDocument["where"]> }),
            ...rule.effect,
          };
        }).filter((rule) => rule !== undefined)
    );
  }

  #commands(entry: unknown, place: Place) {
    const { runasusers, runasgroups, Options: options, Commands: list, ...others } = fieldsOf(
      entry,
    );
    for (const name of Object.keys(others)) {
      this.#problem(place, `a policy cannot express ${name}`);
    }
    const target = this.#target(runasusers, runasgroups, place);
    const allow = this.#grants(options, place);
    return this.#expand(membersOf(list), place).flatMap((member) => {
      const text = String(member.value);
      if (member.kind !== "command") {
        this.#problem(place, `a policy cannot express the ${member.kind} ${text}`, text);
        return [];
      }
      const match = matchCommand(text, member.isNegated, this.#lookups.resolveFolder);
      if (typeof match === "string") {
        this.#problem(place, `a policy cannot express the command ${text}: it has ${match}`, text);
        return [];
      }
      if (member.digest !== true && (member.isNegated || !match.actions.includes("run"))) {
        const what = member.isNegated ? "a negated command" : "sudoedit";
        this.#problem(place, `a policy cannot express a digest of ${what}: ${text}`, text);
        return [];
      }
      const actions = member.digest === true ? match.actions : ["run"];
      return [{
        text: `${member.isNegated ? "!" : ""}${text}`,
        actions,
        where: all(target, match.where, member.digest),
        effect: member.isNegated ? { deny: true } as const : { allow },
      }];
    });
  }

  /** The condition on target user and group, as runaslist_matches() of sudo 1.9.13 has it. */
  #target(users: unknown, groups: unknown, place: Place): Formula {
    // A requested group with the peer's own user is `sudo -g`, for which sudo ignores the list of users.
    if (users === undefined && groups === undefined) {
      return any({ runasUser: "root" }, all(SELF, OWN_GROUP));
    }
    const members = [...this.#expand(users, place), ...this.#expand(groups, place)];
    if (groups !== undefined && members.some(({ isAliased }) => isAliased)) {
      // In sudo 1.9.13 an alias then matches in a few cases only.
      this.#problem(place, "a policy cannot express a Runas_Alias in a list with groups");
    }
    const onUser = this.#fold(users, false, place, (user) => this.#runasUser(user, place));
    const onGroup = this.#fold(groups, OWN_GROUP, place, (group) => this.#runasGroup(group, place));
    const onAny = all(onUser, any(not(GROUP_REQUESTED), onGroup));
    return onUser === true ? onAny : any(onAny, all(SELF, onGroup));
  }

  /** Folds a list, in which the last member that matches decides. Members match, unless negated. */
  #fold(list: unknown, start: Formula, place: Place, match: (member: Member) => Formula): Formula {
    return this.#expand(list, place).reduce<Formula>(
      (before, member) =>
        member.isNegated ? all(not(match(member)), before) : any(match(member), before),
      start,
    );
  }

  #user({ kind, value }: Member, place: Place): Formula {
    if (value === "ALL" && kind === "username") return true;
    if (kind === "username" && this.#isName(value, place)) return { user: value };
    if (kind === "usergroup" && this.#isName(value, place)) return { group: value };
    if (kind === "userid" && typeof value === "number") return { uid: value };
    if (kind === "usergid" && typeof value === "number") {
      const name = this.#lookups.groupName(value);
      if (name !== undefined) return { group: name };
      this.#problem(place, `there is no group with the gid ${value}`, `%#${value}`);
      return false;
    }
    return this.#inexpressible(kind, value, place);
  }

  #host({ kind, value }: Member, place: Place): Formula {
    if (kind !== "hostname" || typeof value !== "string") {
      return this.#inexpressible(kind, value, place);
    }
    if (value === "ALL") return true;
    if (/^[A-Za-z0-9_*-]+$/.test(value)) {
      return { host: value.toLowerCase().replaceAll(/\*+/g, "**") };
    }
    this.#problem(place, `a policy cannot express the host ${value}`, value);
    return false;
  }

  #runasUser({ kind, value }: Member, place: Place): Formula {
    if (kind === "username") {
      if (value === "ALL") return true;
      if (value === "") return SELF;
      if (this.#isName(value, place)) return { runasUser: value };
    }
    if (kind === "userid" && typeof value === "number") return { runasUid: value };
    if (kind === "usergroup" && this.#isName(value, place)) {
      return { runasGroups: { some: value } };
    }
    return this.#inexpressible(kind, value, place);
  }

  #runasGroup({ kind, value }: Member, place: Place): Formula {
    if (value === "ALL" && kind === "usergroup") return GROUP_REQUESTED;
    if (kind === "usergroup" && this.#isName(value, place)) return { runasGroup: value };
    return this.#inexpressible(kind, value, place);
  }

  #inexpressible(kind: string, value: string | number, place: Place): Formula {
    this.#problem(place, `a policy cannot express the ${kind} ${value}`, String(value));
    return false;
  }

  /** Whether it is a name that sudo and policies compare alike. Otherwise reports a problem. */
  #isName(value: string | number, place: Place): value is string {
    // sudo ignores the case of letters in names. Names with "*" would be globs.
    if (typeof value === "string" && /^[^A-Z*#\s\\\p{C}][^A-Z*\\\p{C}]*$/u.test(value)) return true;
    const why = typeof value === "string" && /[A-Z]/.test(value)
      ? "sudo ignores the case of letters"
      : "it has other characters than names of accounts";
    this.#problem(place, `a policy cannot express the name ${value}: ${why}`, String(value));
    return false;
  }

  #grants(options: unknown, place: Place): true | readonly string[] {
    const set = { ...this.#defaults };
    for (const option of listOf(options)) {
      for (const [name, value] of Object.entries(fieldsOf(option))) {
        if (Object.hasOwn(OPTION_GRANTS, name) && typeof value === "boolean") set[name] = value;
        else this.#problem(place, `a policy cannot express the option ${name}`, name);
      }
    }
    const grants = Object.entries(set).flatMap(([name, value]) =>
      OPTION_GRANTS[name]![`${value}`] ?? []
    );
    return grants.length === 0 ? true : grants.toSorted();
  }

  /** The members of a list, with those of aliases in their places. */
  #expand(list: unknown, place: Place, isNegated = false, depth = 0): readonly Member[] {
    return (list === undefined ? [] : membersOf(list)).flatMap((entry): readonly Member[] => {
      const { negated, ...named } = fieldsOf(entry);
      const isDigest = ([name]: [string, unknown]) => DIGEST_BYTES[name] !== undefined;
      const fields = Object.entries(named);
      const [[kind, value] = ["", undefined], ...others] = fields.filter((each) => !isDigest(each));
      const digest = this.#digest(fields.filter(isDigest), place);
      const flips = negated === true;
      const isRight = typeof value === "string" || typeof value === "number";
      if (!isRight || others.length > 0 || (negated !== undefined && !flips)) {
        this.#problem(place, `a policy cannot express this member: ${JSON.stringify(entry)}`);
        return [];
      }
      const definitions = Object.hasOwn(ALIASES, kind) ? ALIASES[kind] : undefined;
      if (definitions === undefined) {
        if (++this.#members > MAX_MEMBERS) throw this.#tooLarge();
        return [{ kind, value, isNegated: isNegated !== flips, isAliased: depth > 0, digest }];
      }
      const aliases = fieldsOf(this.#data[definitions] ?? {});
      const members = Object.hasOwn(aliases, String(value)) ? aliases[String(value)] : undefined;
      if (members === undefined) {
        // sudo takes the name of an undefined alias as the name of a user, group or host.
        this.#problem(place, `there is no alias ${value}`, String(value));
        return [];
      }
      if (depth === MAX_ALIAS_DEPTH) throw this.#tooLarge();
      return this.#expand(members, place, isNegated !== flips, depth + 1);
    });
  }

  /** The condition that the file has one of the digests, which are hexadecimal or Base64. */
  #digest(digests: readonly [name: string, value: unknown][], place: Place): Formula {
    if (digests.length === 0) return true;
    return any(...digests.map(([name, value]): Formula => {
      const text = String(value);
      const bytes = DIGEST_BYTES[name]!;
      if (new RegExp(`^[0-9a-f]{${2 * bytes}}$`, "i").test(text)) {
        return { [name]: text.toLowerCase() };
      }
      const decoded = Buffer.from(text, "base64");
      if (decoded.length === bytes && /^[A-Za-z0-9+/]+={0,2}$/.test(text)) {
        return { [name]: decoded.toString("hex") };
      }
      this.#problem(place, `the digest ${text} is not ${bytes} bytes`, text);
      return false;
    }));
  }

  #tooLarge(): UcredError {
    const message = `aliases are nested deeper than ${MAX_ALIAS_DEPTH} or have more than ` +
      `${MAX_MEMBERS} members`;
    this.#problem(FILE, message);
    return this.#error();
  }

  /** @param found The text of the sudoers file that the problem is about. */
  #problem({ path, title }: Place, message: string, found?: string): void {
    const lines = found === undefined || found === ""
      ? []
      : this.#lines.flatMap((line, at) => line.includes(found) ? [at + 1] : []);
    this.#problems.push({
      message: title === "" ? message : `${title}: ${message}`,
      path,
      file: this.#exported.file,
      line: lines.length === 1 ? lines[0] : undefined,
      column: undefined,
    });
  }

  #error(): UcredError {
    const { file = "sudoers" } = this.#exported;
    const problems = this.#problems.slice(0, MAX_PROBLEMS);
    const lines = problems.map(({ line, message }) =>
      `${visible(file)}${line === undefined ? "" : `:${line}`}: ${visible(message)}`
    );
    const hint = "Change these parts of the file, or write rules for them by hand";
    const message = `Cannot import the sudoers file: ${lines.join("\n")}`;
    return new UcredError("ERR_UCRED_POLICY", message, { hint, problems });
  }
}

const MAX_PROBLEMS = 100;

const FILE: Place = { path: [], title: "" };

/** Requests without a target that has an account: `sudo -u #-1` ran commands as root once. */
const WITHOUT_TARGET = [{ not: { runasUid: "0-4294967294" } }, { not: { runasUser: "**" } }];

/** Rules that deny requests which the others could take for another command or user. An unknown attribute denies. */
const GUARDS: readonly RuleDocument[] = [
  {
    name: "sudo 1.9: commands without a canonical path or a target, and sudoedit",
    actions: "run",
    where: {
      any: [
        { not: { command: "/**" } },
        { command: "**/sudoedit" }, // for sudo, it is no command
        { command: ["**//**", "**/./**", "**/../**", "**/", "**/.", "**/.."] },
        ...WITHOUT_TARGET,
      ],
    },
    deny: true,
  },
  {
    name: "sudo 1.9: files without a target",
    actions: "edit",
    where: { any: WITHOUT_TARGET },
    deny: true,
  },
];

/** Tests that hold for every import. */
const TESTS: readonly TestDocument[] = [
  {
    name: "a request without attributes is denied",
    peer: { uid: 0, gid: 0, groups: [] },
    action: "run",
    expect: { deny: true },
  },
];

const shorten = (text: string) => visible(text.length > 80 ? `${text.slice(0, 79)}…` : text);

/** JSON of another form than that of cvtsudoers. */
class UnknownForm extends Error {}

function listOf(value: unknown): readonly unknown[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw new UnknownForm(`${JSON.stringify(value)} is not a list`);
  return value;
}

/** Lists that cannot be empty: without its members, an entry would match no request. */
function membersOf(value: unknown): readonly unknown[] {
  const list = listOf(value);
  if (list.length === 0) throw new UnknownForm("a list without members");
  return list;
}

function fieldsOf(value: unknown): Fields {
  if (isObject(value)) return value;
  throw new UnknownForm(`${JSON.stringify(value)} is not an object`);
}
