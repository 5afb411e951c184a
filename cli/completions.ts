/**
 * Generates a script that completes command lines in bash without starting `ucred`.
 *
 * Each other shell would need a generator of its own. @bomb.sh/tab 0.0.22, a library for commander,
 * completes no file names, and most arguments of this command are files.
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

/** Returns the script. */
export function bashCompletion(program: Command): string {
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
