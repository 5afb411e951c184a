/**
 * Generates scripts that complete command lines in a shell without starting `ucred`.
 *
 * @bomb.sh/tab 0.0.22, a library for commander, completes no file names, and most arguments of this command
 * are files.
 */

import type { Argument, Command, Option } from "commander";
import { everyCommand, nameOf } from "./commands.ts";

/** The values of an argument or option. */
type Values = "files" | "users" | "groups" | "pids" | "anything" | readonly string[];

/** The values of arguments and options by their names in help. */
const VALUES: { readonly [name: string]: Values } = {
  socket: "files",
  file: "files",
  before: "files",
  after: "files",
  request: "files",
  user: "users",
  group: "groups",
  pid: "pids",
};

/** Shell → the function that returns its script, and the name of the file that the shell loads. */
export const SHELLS = {
  bash: { script: bashCompletion, file: "ucred.bash" },
  zsh: { script: zshCompletion, file: "_ucred" },
  fish: { script: fishCompletion, file: "ucred.fish" },
} as const;

function bashCompletion(program: Command): string {
  const commands = everyCommand(program);
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
${commands.filter(hasSubcommands).map(step).join("\n")}
    esac
  done
  COMPREPLY=()
  case $at:$prev in
${commands.flatMap(optionValues).join("\n")}
  esac
  case $at in
${commands.map(words).join("\n")}
  esac
}

complete -o bashdefault -o default -F _ucred ucred`;
}

const hasSubcommands = ({ commands }: Command): boolean => commands.length > 0;

/** The name of a command in the script: "" for the program itself. */
const stateOf = (command: Command): string => command.parent === null ? "" : nameOf(command);

/** Extends the command's name by the name of a subcommand. The word "help" changes nothing. */
function step(command: Command): string {
  const patterns = command.commands.map((each) => quoted(`${stateOf(command)}:${each.name()}`));
  return `      ${patterns.join("|")}) at=\${at:+$at }$word ;;`;
}

/** Completes the values of a command's options. */
function optionValues(command: Command): readonly string[] {
  return command.options.filter(({ required, optional }) => required || optional).map((option) => {
    const flag = quoted(`${stateOf(command)}:${option.long}`);
    return `    ${flag}) ${complete(valuesOf(option, placeholderOf(option)))}; return ;;`;
  });
}

/** Completes a command's options, and its subcommands or arguments. */
function words(command: Command): string {
  const help = command.createHelp();
  const flags = help.visibleOptions(command).map(({ long }) => long!);
  const names = help.visibleCommands(command).map((each) => each.name());
  const [argument] = command.registeredArguments; // all arguments of a command are of one kind
  const values = argument === undefined ? [] : valuesOf(argument, argument.name());
  return [
    `    ${quoted(stateOf(command))})`,
    `      if [[ $cur == -* ]]; then ${complete(flags)}`,
    `      else ${complete(names.length > 0 ? names : values)}`,
    "      fi ;;",
  ].join("\n");
}

/** "file" in "--policy <file>". */
function placeholderOf({ flags }: Option): string {
  return /[<[]([a-z-]+)/.exec(flags)![1]!;
}

function valuesOf({ argChoices }: Argument | Option, name: string): Values {
  return argChoices ?? VALUES[name] ?? "anything";
}

/** The statement that completes these values. bash completes file names if COMPREPLY stays empty. */
function complete(values: Values): string {
  if (values === "files") return "COMPREPLY=()";
  if (values === "users") return "_ucred_words -u";
  if (values === "groups") return "_ucred_words -g";
  if (values === "pids") return `_ucred_words -W "$(cd /proc 2>/dev/null && echo [0-9]*)"`;
  return `_ucred_words -W ${quoted(values === "anything" ? "" : values.join(" "))}`;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Generates one function for each command. `_arguments` shifts the words, so that each function sees its own. */
function zshCompletion(program: Command): string {
  return `#compdef ucred
# zsh completion of ucred. In ~/.zshrc, after compinit:  source <(ucred completions zsh)

${everyCommand(program).map(zshFunction).join("\n\n")}

if [[ $funcstack[1] == _ucred ]]; then _ucred "$@"
else compdef _ucred ucred
fi`;
}

const zshName = (command: Command): string =>
  ["_ucred", ...stateOf(command).split(" ")].filter((part) => part !== "").join("_");

function zshFunction(command: Command): string {
  const help = command.createHelp();
  const options = help.visibleOptions(command).map(zshOption);
  const below = help.visibleCommands(command);
  if (below.length === 0) {
    const args = command.registeredArguments.map((argument, index) => {
      const position = argument.variadic ? "*" : argument.required ? index + 1 : `${index + 1}:`;
      return quoted(
        `${position}:${zshText(argument.name())}:${zshValues(argument, argument.name())}`,
      );
    });
    return `${zshName(command)}() {\n  _arguments -S ${[...options, ...args].join(" \\\n    ")}\n}`;
  }
  const names = below.map((each) =>
    quoted(`${each.name()}:${each.description().replaceAll(":", "\\:")}`)
  );
  // After "help", the names of the same subcommands are offered again.
  const cases = below.map((each) =>
    `        ${each.name()}) ${each.name() === "help" ? zshName(command) : zshName(each)} ;;`
  );
  return `${zshName(command)}() {
  local curcontext=$curcontext state line
  local -a names
  typeset -A opt_args
  _arguments -C ${options.join(" \\\n    ")} \\
    '1: :->command' '*:: :->arguments'
  case $state in
    command)
      names=(
        ${names.join("\n        ")}
      )
      _describe command names ;;
    arguments)
      case $line[1] in
${cases.join("\n")}
      esac ;;
  esac
}`;
}

function zshOption(option: Option): string {
  const { short, long, description, required, optional, variadic } = option;
  const about = `[${zshText(description).replaceAll(/[[\]]/g, "\\$&")}]`;
  if (short) return `'(- *)'{${short},${long}}${quoted(about)}`; // --help and --version end the line
  const repeat = variadic ? "*" : "";
  if (!required && !optional) return quoted(`${repeat}${long}${about}`);
  const name = placeholderOf(option);
  const colon = optional ? "::" : ":";
  return quoted(`${repeat}${long}=${about}${colon}${zshText(name)}:${zshValues(option, name)}`);
}

const zshText = (text: string): string => text.replaceAll("\\", "\\\\").replaceAll(":", "\\:");

function zshValues(of: Argument | Option, name: string): string {
  const values = valuesOf(of, name);
  if (typeof values === "object") return `(${values.join(" ")})`;
  return {
    files: "_files",
    users: "_users",
    groups: "_groups",
    pids: "{compadd /proc/<->(N\\:t)}",
    anything: " ",
  }[values];
}

/** Generates one line for each word, with the command after which it is offered. */
function fishCompletion(program: Command): string {
  const commands = everyCommand(program);
  const cases = commands.filter(hasSubcommands).map((command) => {
    const words = command.commands.map((each) => quoted(`${stateOf(command)}:${each.name()}`));
    return `            case ${words.join(" ")}\n                set at (string trim "$at $word")`;
  });
  return `# fish completion of ucred. In ~/.config/fish/config.fish:  ucred completions fish | source

function __ucred_at
    set -l at ''
    for word in (commandline -opc)[2..]
        switch "$at:$word"
${cases.join("\n")}
        end
    end
    test "$at" = "$argv[1]"
end

complete -c ucred -f
${commands.flatMap(fishLines).join("\n")}`;
}

function fishLines(command: Command): readonly string[] {
  const help = command.createHelp();
  const at = `complete -c ucred -n ${fishQuoted(`__ucred_at "${stateOf(command)}"`)}`;
  const below = help.visibleCommands(command).map((each) =>
    `${at} -a ${each.name()} -d ${fishQuoted(each.description())}`
  );
  const options = help.visibleOptions(command).map((option) => {
    const { short, long, description, required } = option;
    const flags = `${short ? `-s ${short.slice(1)} ` : ""}-l ${long!.slice(2)}`;
    const values = required
      ? ` ${fishValues(valuesOf(option, placeholderOf(option)), "-x", "-r")}`
      : "";
    return `${at} ${flags}${values} -d ${fishQuoted(description)}`;
  });
  const args = command.registeredArguments.map((argument) => valuesOf(argument, argument.name()))
    .filter((values) => values !== "anything").map((values) =>
      `${at} ${fishValues(values, "", "")}`
    );
  return [...below, ...options, ...args];
}

/** The flags for values. `exclusive` rejects files, `required` accepts them. */
function fishValues(values: Values, exclusive: string, required: string): string {
  if (values === "files") return `${required} -F`.trim();
  if (values === "anything") return exclusive;
  const offered = typeof values === "object" ? values.join(" ") : `(__fish_complete_${values})`;
  return `${exclusive} -a ${fishQuoted(offered)}`.trim();
}

/** In fish, a backslash escapes the quote. */
function fishQuoted(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}
