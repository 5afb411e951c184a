/** The command line → scripts that complete it in bash, zsh and fish, without starting `ucred`. */

import type { Argument, Command, Option } from "commander";
import { everyCommand, nameOf } from "./commands.ts";

/** Shells that there are scripts for. */
export const SHELLS = ["bash", "zsh", "fish"] as const;

/** The script for a shell. */
export function completions(program: Command, shell: (typeof SHELLS)[number]): string {
  const states = everyCommand(program).map(stateOf);
  const all = states.flatMap((state) => [state, ...helpOf(state, states)]);
  return { bash, zsh, fish }[shell](all);
}

/** What can stand in a place of the command line. */
type Values = "files" | "users" | "groups" | "pids" | "anything" | readonly string[];

/** What the placeholders in help and usage stand for. */
const PLACEHOLDERS: { readonly [name: string]: Values } = {
  socket: "files",
  file: "files",
  before: "files",
  after: "files",
  user: "users",
  group: "groups",
  pid: "pids",
};

/** A command, as completion sees it: what can come after its name. */
interface State {
  /** "" of the program itself, "policy check" of a command below. */
  readonly name: string;
  readonly commands: readonly Below[];
  readonly places: readonly Place[];
  readonly options: readonly Flag[];
}

interface Below {
  readonly name: string;
  readonly about: string;
}

interface Place {
  readonly name: string;
  readonly values: Values;
  readonly isMany: boolean;
  readonly isOptional: boolean;
}

interface Flag {
  /** "-h" and "--help". */
  readonly names: readonly string[];
  readonly about: string;
  /** `undefined` if it stands alone. */
  readonly value: Place | undefined;
}

function stateOf(command: Command): State {
  const help = command.createHelp();
  const isProgram = command.parent === null;
  return {
    name: isProgram ? "" : nameOf(command),
    commands: help.visibleCommands(command).map((below) => ({
      name: below.name(),
      about: below.description(),
    })),
    places: command.registeredArguments.map((argument) => placeOf(argument, argument.name())),
    options: help.visibleOptions(command).map((option) => ({
      names: [option.short, option.long].filter((name) => name !== undefined && name !== null),
      about: option.description,
      value: option.required || option.optional
        ? placeOf(option, placeholderOf(option))
        : undefined,
    })),
  };
}

/** The command "help", which what has commands has: after it stand the names of commands, level by level. */
function helpOf({ name, commands }: State, states: readonly State[]): readonly State[] {
  if (commands.length === 0) return [];
  const below = commands.filter((each) => each.name !== "help");
  const levelOf = (help: string, about: readonly Below[]): readonly State[] => [
    { name: help, commands: about, places: [], options: [] },
    ...about.flatMap((each) => {
      const under = states.find((state) => state.name === joined(name, each.name))?.commands ?? [];
      const names = under.filter(({ name }) => name !== "help");
      return names.length === 0
        ? [{ name: joined(help, each.name), commands: [], places: [], options: [] }]
        : levelOf(joined(help, each.name), names);
    }),
  ];
  return levelOf(joined(name, "help"), below);
}

function placeholderOf({ flags }: Option): string {
  return /[<[]([a-z-]+)/.exec(flags)![1]!;
}

function placeOf(of: Argument | Option, name: string): Place {
  const values = of.argChoices ?? PLACEHOLDERS[name] ?? "anything";
  return { name, values, isMany: of.variadic, isOptional: !of.required };
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** The commands that come before others: "policy" before "policy check". */
function parentsOf(states: readonly State[]): readonly State[] {
  return states.filter(({ commands }) => commands.length > 0);
}

const joined = (...words: readonly string[]) => words.filter((word) => word !== "").join(" ");

function bash(states: readonly State[]): string {
  const step = ({ name, commands }: State) => {
    const patterns = commands.map((below) => quoted(`${name}:${below.name}`));
    return `      ${patterns.join("|")}) at=\${at:+$at }$word ;;`;
  };
  const values = ({ name, options }: State) =>
    options.flatMap(({ names, value }) =>
      value === undefined ? [] : [
        `    ${names.map((flag) => quoted(`${name}:${flag}`)).join("|")}) ` +
        `${bashValues(value.values)}; return ;;`,
      ]
    );
  const rest = ({ name, commands, places, options }: State) => {
    const flags = options.flatMap(({ names }) => names.filter((flag) => flag.startsWith("--")));
    const [place] = places; // where there are more, they are of one kind
    const words = commands.map((below) => below.name);
    return [
      `    ${quoted(name)})`,
      `      if [[ $cur == -* ]]; then ${bashValues(flags)}`,
      `      else ${bashValues(commands.length > 0 ? words : place?.values ?? [])}`,
      "      fi ;;",
    ].join("\n");
  };
  return `# bash completion of ucred. In ~/.bashrc:  source <(ucred completions bash)

_ucred_words() {
  compopt +o default 2>/dev/null
  local IFS=$' \\t\\n'
  COMPREPLY=($(compgen "$@" -- "$cur"))
}

_ucred() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]} at= word i
  if [[ $cur == = ]]; then cur=
  elif [[ $prev == = ]]; then prev=\${COMP_WORDS[COMP_CWORD - 2]}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    case $at:$word in
${parentsOf(states).map(step).join("\n")}
    esac
  done
  COMPREPLY=()
  case $at:$prev in
${states.flatMap(values).join("\n")}
  esac
  case $at in
${states.map(rest).join("\n")}
  esac
}

complete -o bashdefault -o default -F _ucred ucred`;
}

/** Where COMPREPLY stays empty, bash completes names of files. */
function bashValues(values: Values): string {
  if (values === "files") return "COMPREPLY=()";
  if (values === "users") return "_ucred_words -u";
  if (values === "groups") return "_ucred_words -g";
  if (values === "pids") return `_ucred_words -W "$(cd /proc 2>/dev/null && echo [0-9]*)"`;
  return `_ucred_words -W ${quoted(values === "anything" ? "" : values.join(" "))}`;
}

function zsh(states: readonly State[]): string {
  const functionName = (name: string) => joined("_ucred", name).replaceAll(" ", "_");
  const body = ({ name, commands, places, options }: State) => {
    const specs = [
      ...options.map(zshFlag),
      ...places.map((place) => quoted(`${place.isMany ? "*" : ""}${zshPlace(place)}`)),
    ];
    if (commands.length === 0 && specs.length === 0) {
      return `${functionName(name)}() {\n  _message 'no more arguments'\n}`;
    }
    if (commands.length === 0) {
      return `${functionName(name)}() {\n  _arguments -s ${specs.join(" \\\n    ")}\n}`;
    }
    const list = commands.map((below) => quoted(`${zshText(below.name)}:${below.about}`));
    const calls = commands.map((below) =>
      `        ${below.name}) ${functionName(joined(name, below.name))} ;;`
    );
    return `${functionName(name)}() {
  local curcontext=$curcontext context state state_descr line
  typeset -A opt_args
  _arguments -C ${[...specs, "'1: :->command'", "'*:: :->rest'"].join(" \\\n    ")}
  case $state in
    command)
      local -a commands=(
        ${list.join("\n        ")}
      )
      _describe -t commands command commands
      ;;
    rest)
      case $line[1] in
${calls.join("\n")}
      esac
      ;;
  esac
}`;
  };
  return `#compdef ucred
# zsh completion of ucred. In ~/.zshrc, after compinit:  source <(ucred completions zsh)

${states.map(body).join("\n\n")}

if [[ $funcstack[1] == _ucred ]]; then _ucred "$@"; else compdef _ucred ucred; fi`;
}

function zshFlag({ names, about, value }: Flag): string {
  const flags = names.map((name) => value === undefined ? name : `${name}=`);
  const spec = `[${zshText(about)}]${value === undefined ? "" : zshPlace(value)}`;
  if (flags.length === 1) return quoted(`${value?.isMany ? "*" : ""}${flags[0]}${spec}`);
  return `${quoted(`(${names.join(" ")})`)}{${flags.join(",")}}${quoted(spec)}`;
}

/** ":name:what completes it". */
function zshPlace({ name, values, isOptional }: Place): string {
  const action = {
    files: "_files",
    users: "_users",
    groups: "_groups",
    pids: "_pids",
    anything: " ",
  };
  const shown = typeof values === "string" ? action[values] : `(${values.join(" ")})`;
  return `${isOptional ? "::" : ":"}${name}:${shown}`;
}

function zshText(text: string): string {
  return text.replace(/[\\\[\]:]/g, "\\$&");
}

function fish(states: readonly State[]): string {
  const when = (name: string) => `-n "__ucred_at '${name}'"`;
  const step = ({ name, commands }: State) =>
    `            case ${commands.map((below) => quoted(`${name}:${below.name}`)).join(" ")}\n` +
    `                set at (string trim -- "$at $word")`;
  const lines = ({ name, commands, places, options }: State) => [
    ...commands.map((below) =>
      `complete -c ucred ${when(name)} -a ${below.name} -d ${quoted(below.about)}`
    ),
    ...places.slice(0, 1).map((place) => `complete -c ucred ${when(name)} ${fishValues(place)}`),
    ...options.map(({ names, about, value }) => {
      const flags = names.map((flag) =>
        flag.replace(/^--/, "-l ").replace(/^-(?=[a-zA-Z]$)/, "-s ")
      );
      const spec = value === undefined ? [] : [value.isOptional ? "" : "-r", fishValues(value)];
      return joined("complete -c ucred", when(name), ...flags, ...spec, "-d", quoted(about));
    }),
  ];
  return `# fish completion of ucred:  ucred completions fish > ~/.config/fish/completions/ucred.fish

function __ucred_at
    set -l at ''
    for word in (commandline -opc)[2..-1]
        switch "$at:$word"
${parentsOf(states).map(step).join("\n")}
        end
    end
    test "$at" = "$argv[1]"
end

complete -c ucred -e
complete -c ucred -f
${states.flatMap(lines).join("\n")}`;
}

function fishValues({ values }: Place): string {
  if (values === "files") return "-F";
  const words = {
    users: "(__fish_complete_users)",
    groups: "(__fish_complete_groups)",
    pids: "(__fish_complete_pids)",
  };
  if (values === "anything") return "-f";
  return `-f -a ${quoted(typeof values === "string" ? words[values] : values.join(" "))}`;
}
