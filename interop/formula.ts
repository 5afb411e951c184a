/** Conditions of policies as formulas: constants vanish, and values of one field become a list. */

/** A condition on a peer or on attributes. `true` always holds, and `false` never does. */
export type Formula = boolean | Fields;

/** The fields of a condition: all of them must hold. */
export interface Fields {
  readonly [field: string]: unknown;
}

/** Returns a formula that holds if all the given ones do. */
export function all(...formulas: readonly Formula[]): Formula {
  const flat = formulas.flatMap((each) => inner("all", each));
  if (flat.includes(false)) return false;
  const rest = withoutDuplicates(flat.filter((each) => each !== true));
  if (rest.length === 0) return true;
  const names = rest.flatMap(Object.keys);
  // Fields of one object must all hold, so that formulas about different fields fit into one.
  if (new Set(names).size === names.length) return Object.assign({}, ...rest) as Fields;
  return { all: rest };
}

/** Returns a formula that holds if any of the given ones does. */
export function any(...formulas: readonly Formula[]): Formula {
  const flat = formulas.flatMap((each) => inner("any", each));
  if (flat.includes(true)) return true;
  const rest: Fields[] = [];
  for (const formula of withoutDuplicates(flat.filter((each) => each !== false))) {
    const field = valueField(formula);
    const at = field === undefined ? -1 : rest.findIndex((each) => valueField(each) === field);
    if (at < 0) rest.push(formula);
    else rest[at] = { [field!]: [rest[at]![field!], formula[field!]].flat() };
  }
  const keys = new Set(rest.map((each) => JSON.stringify(each)));
  if (rest.some((each) => keys.has(JSON.stringify(not(each))))) return true;
  if (rest.length === 0) return false;
  return rest.length === 1 ? rest[0]! : { any: rest };
}

/** Returns a formula that holds if the given one does not. */
export function not(formula: Formula): Formula {
  if (typeof formula === "boolean") return !formula;
  const [name, ...others] = Object.keys(formula);
  return name === "not" && others.length === 0 ? formula["not"] as Fields : { not: formula };
}

/** Returns the formulas of an `any` or `all`, to place them into an outer one of the same name. */
function inner(name: "any" | "all", formula: Formula): readonly Formula[] {
  const isOnly = typeof formula === "object" && Object.keys(formula).join() === name;
  return isOnly ? formula[name] as readonly Formula[] : [formula];
}

/** Returns the name of the only field of a formula, if that field may have a list, of which any value suffices. */
function valueField(formula: Fields): string | undefined {
  const [name, ...others] = Object.keys(formula);
  if (others.length > 0 || name === undefined || ["any", "all", "not"].includes(name)) {
    return undefined;
  }
  const value = formula[name];
  return typeof value === "object" && !Array.isArray(value) || typeof value === "boolean"
    ? undefined
    : name;
}

function withoutDuplicates(formulas: readonly Formula[]): Fields[] {
  const byText = new Map(formulas.map((each) => [JSON.stringify(each), each as Fields]));
  return [...byText.values()];
}
