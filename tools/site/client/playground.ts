/**
 * The page of the playground. Texts of the fields reach the document as text only: nothing here parses
 * HTML, and the Content-Security-Policy of the page forbids it.
 */

import { NAMESPACE_KINDS } from "../../../core/process.ts";
import { isObject } from "../../../core/policy/document/shape.ts";
import { readData } from "../../../policy/parse.ts";
import { evaluate, type Evaluation, type FieldProblem } from "./evaluate.ts";
import { EXAMPLES } from "./examples.ts";
import { FIELDS, fragmentOf, type State, stateOf } from "./state.ts";
import type { Table, Test } from "./table.ts";

type Child = Node | string;

/** Makes an element. Children that are strings become text. */
function element<T extends keyof HTMLElementTagNameMap>(
  tag: T,
  attributes: { readonly [name: string]: string },
  ...children: readonly Child[]
): HTMLElementTagNameMap[T] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const byId = <T extends HTMLElement>(id: string) => document.querySelector<T>(`#${id}`)!;

/** The state is the text of these elements. */
const fields = Object.fromEntries(
  FIELDS.map((name) => [name, byId<HTMLTextAreaElement | HTMLInputElement>(name)]),
) as { readonly [field in typeof FIELDS[number]]: HTMLTextAreaElement | HTMLInputElement };

const readState = () =>
  Object.fromEntries(FIELDS.map((name) => [name, fields[name].value])) as unknown as State;

function showState(state: State): void {
  for (const name of FIELDS) fields[name].value = state[name];
  fillForm();
  update();
}

// The form and the JSON of the peer

/** A field of the form: its element, and the places of its value in the JSON. */
interface FormField {
  readonly id: string;
  /** Reads the value from the peer: `null` for a fact that is known to be absent. */
  read(peer: PeerData): string | null;
  /** Changes the peer. An empty text removes the fact. */
  write(peer: PeerData, text: string): void;
}

type PeerData = { [name: string]: unknown };

const isNumber = (text: string) => /^\d+$/.test(text);
const idOrName = (text: string) => isNumber(text) ? Number(text) : text;

function accountField(id: string, idName: string, textName: string): FormField {
  return {
    id,
    read: (peer) => `${peer[textName] ?? peer[idName] ?? ""}`,
    write: (peer, text) => {
      delete peer[idName];
      delete peer[textName];
      if (text !== "") peer[isNumber(text) ? idName : textName] = idOrName(text);
    },
  };
}

function processOf(peer: PeerData): PeerData {
  return isObject(peer["process"]) ? peer["process"] as PeerData : {};
}

/** Sets or removes a fact of the process. */
function setProcess(peer: PeerData, name: string, value: unknown): void {
  const process = { ...processOf(peer), [name]: value };
  if (value === undefined) delete process[name];
  peer["process"] = process;
  if (Object.keys(process).length === 0) delete peer["process"];
}

function processField(name: string): FormField {
  return {
    id: name,
    read: (peer) => {
      const value = processOf(peer)[name];
      return value === null ? null : `${value ?? ""}`;
    },
    write: (peer, text) => setProcess(peer, name, text === "" ? undefined : text),
  };
}

const FORM: readonly FormField[] = [
  accountField("user", "uid", "user"),
  accountField("group", "gid", "group"),
  {
    id: "groups",
    read: ({ groups }) => {
      return groups === undefined ? "" : Array.isArray(groups) ? groups.join(", ") || "none" : "";
    },
    write: (peer, text) => {
      const names = text.split(",").map((name) => name.trim()).filter((name) => name !== "");
      delete peer["groups"];
      if (names.length > 0) peer["groups"] = text.trim() === "none" ? [] : names.map(idOrName);
    },
  },
  processField("exe"),
  processField("unit"),
  processField("container"),
  {
    id: "label",
    read: ({ label }) => label === null ? null : `${label ?? ""}`,
    write: (peer, text) => {
      delete peer["label"];
      if (text !== "") peer["label"] = text;
    },
  },
  {
    id: "namespaces",
    read: (peer) => {
      const spaces = processOf(peer)["namespaces"];
      const ours = isObject(spaces)
        ? Object.values(spaces).map((space) => isObject(space) && space["ours"] === true)
        : [];
      return ours.length === 0 ? "" : ours.every(Boolean) ? "same" : "other";
    },
    write: (peer, text) => {
      const spaces = NAMESPACE_KINDS.map((kind) => [kind, { ours: text === "same" }]);
      setProcess(peer, "namespaces", text === "" ? undefined : Object.fromEntries(spaces));
    },
  },
];

/** The peer of the JSON; `undefined` if it is no object. */
function peerData(): PeerData | undefined {
  const text = fields.peer.value.trim();
  if (text === "") return {};
  const contents = readData(text);
  return "data" in contents && isObject(contents.data) ? { ...contents.data } : undefined;
}

/** Shows the peer of the JSON in the form. */
function fillForm(): void {
  const peer = peerData();
  for (const { id, read } of FORM) {
    const input = byId<HTMLInputElement>(`peer-${id}`);
    const value = peer === undefined ? "" : read(peer);
    input.value = value ?? "";
    if (input.tagName === "INPUT") input.placeholder = value === null ? "none" : "unknown";
    input.disabled = peer === undefined;
  }
}

function formChanged({ id, write }: FormField): void {
  const peer = peerData();
  if (peer === undefined) return;
  write(peer, byId<HTMLInputElement>(`peer-${id}`).value.trim());
  fields.peer.value = JSON.stringify(peer, null, 2);
  update();
}

// Results

const TITLES = { yes: "holds", no: "does not hold", unknown: "is unknown" } as const;

const markOf = (holds: boolean | undefined) =>
  holds === undefined ? "unknown" : holds ? "yes" : "no";

function testElement({ text, holds }: Test): HTMLElement {
  const mark = markOf(holds);
  return element(
    "div",
    { class: `test ${mark}`, title: `${text} ${TITLES[mark]}` },
    element("span", { class: "mark" }, mark),
    ` ${text}`,
  );
}

function tableElement({ facts, values, rows }: Table, evaluation: Evaluation): HTMLElement {
  const { rules } = evaluation.explanation!;
  const head = element(
    "thead",
    {},
    element(
      "tr",
      {},
      element("th", { scope: "col" }, "Rule"),
      ...facts.map((fact) => element("th", { scope: "col" }, fact)),
      element("th", { scope: "col" }, "Outcome"),
    ),
  );
  const peer = element(
    "tr",
    { class: "peer" },
    element("th", { scope: "row" }, "The peer and its request"),
    ...values.map((value) => element("td", {}, value)),
    element("td", {}),
  );
  const body = rows.map(({ rule, effect, cells }, at) => {
    const { outcome, nearMiss } = rules[at]!;
    const kind = outcome === "decided" ? `decided ${effect}` : "";
    return element(
      "tr",
      { class: kind },
      element("th", { scope: "row" }, rule, element("span", { class: "effect" }, ` ${effect}`)),
      ...cells.map((tests) => element("td", {}, ...tests.map(testElement))),
      element(
        "td",
        {},
        outcome,
        ...(nearMiss === undefined ? [] : [element("div", { class: "near" }, nearMiss)]),
      ),
    );
  });
  const table = element("table", {}, head, element("tbody", {}, peer, ...body));
  const name = "Rules and facts";
  return element(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": name },
    table,
  );
}

const LABELS = {
  policy: "Policy",
  edited: "Edited policy",
  peer: "Peer",
  action: "Action",
  attributes: "Attributes",
  accounts: "Accounts",
} as const;

/** A problem as a button that selects its place. */
function problemElement({ field, message, line, column }: FieldProblem): HTMLElement {
  const place = line === undefined ? "" : `:${line}:${column}`;
  const button = element(
    "button",
    { type: "button", class: "place" },
    `${LABELS[field]}${place}`,
  );
  button.addEventListener("click", () => select(field, line, column));
  return element("li", {}, button, ` ${message}`);
}

/** Moves the caret to a line and a column. */
function select(field: FieldProblem["field"], line = 1, column = 1): void {
  const input = fields[field];
  input.closest("details")?.setAttribute("open", "");
  const before = input.value.split("\n").slice(0, line - 1).join("\n");
  const at = (line > 1 ? before.length + 1 : 0) + column - 1;
  const end = input.value.indexOf("\n", at);
  input.focus();
  input.setSelectionRange(at, end < 0 ? input.value.length : end);
  const height = Number.parseFloat(getComputedStyle(input).lineHeight);
  input.scrollTop = Math.max(0, (line - 5) * height);
}

/** "policy:3:5" as a button, for findings and failed tests. */
function placeElement(where: string | undefined): readonly Child[] {
  const [, line, column] = /:(\d+):(\d+)$/.exec(where ?? "") ?? [];
  if (line === undefined) return [];
  const button = element("button", { type: "button", class: "place" }, `${line}:${column}`);
  button.addEventListener("click", () => select("policy", Number(line), Number(column)));
  return [button, " "];
}

const EMPTY: Evaluation = { problems: [] };

/** Evaluates the fields and shows the result. */
function update(): void {
  let evaluation: Evaluation;
  try {
    evaluation = evaluate(readState());
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    evaluation = { ...EMPTY, problems: [{ field: "policy", message }] };
  }
  show(evaluation);
  drawLineNumbers();
}

function show(evaluation: Evaluation): void {
  const { problems, explanation, table, findings, who, tests, difference, actions } = evaluation;
  byId("problems").replaceChildren(...problems.map(problemElement));
  for (const name of FIELDS) {
    const isWrong = problems.some(({ field }) => field === name);
    fields[name].setAttribute("aria-invalid", String(isWrong));
  }
  const decision = byId("decision");
  const { allowed, reason } = explanation?.decision ?? {};
  const text = explanation === undefined
    ? `No decision: ${problems.length} ${problems.length === 1 ? "problem" : "problems"}`
    : `${allowed ? "Allowed" : "Denied"}. ${reason}`;
  decision.className = explanation === undefined ? "none" : allowed ? "allowed" : "denied";
  // A screen reader repeats the text if it is set again.
  if (decision.textContent !== text) decision.textContent = text;
  byId("table").replaceChildren(
    ...(table === undefined ? [] : [tableElement(table, evaluation)]),
  );
  byId("explanation").textContent = explanation === undefined ? "" : String(explanation);
  byId("findings").replaceChildren(...(findings ?? []).map(({ level, message, where }) =>
    element(
      "li",
      {},
      ...placeElement(where),
      element("span", { class: `level ${level}` }, level),
      ` ${message}`,
    )
  ));
  byId("no-findings").textContent = findings === undefined
    ? "Fix the problems first."
    : findings.length === 0
    ? "No findings."
    : "";
  byId("who").textContent = who ?? "Fix the problems first.";
  byId("tests").replaceChildren(
    ...(tests?.results ?? []).map(({ name, passed, message, where }) =>
      element(
        "li",
        {},
        ...placeElement(where),
        element(
          "span",
          { class: passed ? "level passed" : "level error" },
          passed ? "ok" : "failed",
        ),
        ` ${name}${message === undefined ? "" : `. ${message}`}`,
      )
    ),
  );
  byId("no-tests").textContent = tests === undefined
    ? "Fix the problems first."
    : tests.results.length === 0
    ? "The policy has no tests."
    : "";
  showDifference(difference);
  byId("actions").replaceChildren(
    ...(actions ?? []).map((action) => element("option", { value: action })),
  );
}

function showDifference(difference: Evaluation["difference"]): void {
  const output = byId("difference");
  if (difference === undefined) {
    output.replaceChildren("Enter a second policy to compare it with the first one.");
    return;
  }
  const { text, found } = difference;
  if (found === undefined) {
    output.replaceChildren(element("strong", {}, text));
    return;
  }
  const { peer, action, attributes, before, after } = found;
  const rows: readonly (readonly [string, string])[] = [
    ["Peer", JSON.stringify(peer)],
    ["Action", action ?? "none"],
    ...(attributes === undefined ? [] : [["Attributes", JSON.stringify(attributes)] as const]),
    ["Policy", `${before.allowed ? "allowed" : "denied"}. ${before.reason}`],
    ["Edited policy", `${after.allowed ? "allowed" : "denied"}. ${after.reason}`],
  ];
  const list = element(
    "dl",
    {},
    ...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
  );
  const use = element("button", { type: "button" }, "Decide this case");
  use.addEventListener("click", () => {
    fields.peer.value = JSON.stringify(peer, null, 2);
    fields.action.value = action ?? "";
    fields.attributes.value = attributes === undefined ? "" : JSON.stringify(attributes, null, 2);
    fillForm();
    changed();
    byId("decision-title").scrollIntoView();
  });
  output.replaceChildren(element("strong", {}, text), list, use);
}

/** The line numbers beside the policies. */
function drawLineNumbers(): void {
  for (const name of ["policy", "edited"] as const) {
    const lines = fields[name].value.split("\n").length;
    byId(`${name}-lines`).textContent = Array.from({ length: lines }, (_, at) => at + 1).join("\n");
  }
}

// Links

/** Writes the state into the address, from which it can be copied. */
async function storeState(): Promise<void> {
  const fragment = await fragmentOf(readState());
  history.replaceState(null, "", fragment);
}

async function share(): Promise<void> {
  await storeState();
  let isCopied = true;
  try {
    await navigator.clipboard.writeText(location.href);
  } catch {
    isCopied = false; // pages that were opened as files may not write to the clipboard
  }
  byId("shared").textContent = isCopied ? "Link copied." : "The link is in the address bar.";
}

/** Shows the state of the address, or the first example. */
async function openState(): Promise<void> {
  const example = byId<HTMLSelectElement>("example");
  const first = () => {
    example.value = "0";
    showState(EXAMPLES[0]!);
  };
  if (!location.hash.startsWith("#v")) return first();
  try {
    showState(await stateOf(location.hash));
    example.value = "";
  } catch (error) {
    first();
    const why = error instanceof Error ? error.message : String(error);
    byId("shared").textContent = `Cannot read the link: ${why}.`;
  }
}

let timer: number | undefined;

/** Milliseconds between the last key press and the evaluation. */
const DELAY_MS = 150;

function changed(): void {
  clearTimeout(timer);
  timer = setTimeout(() => {
    byId("shared").textContent = "";
    update();
    void storeState();
  }, DELAY_MS) as unknown as number;
}

function start(): void {
  const select = byId<HTMLSelectElement>("example");
  select.append(...EXAMPLES.map(({ title }, at) => element("option", { value: `${at}` }, title)));
  select.addEventListener("change", () => {
    const example = EXAMPLES[Number(select.value)];
    if (select.value === "" || example === undefined) return;
    history.replaceState(null, "", location.pathname);
    byId("shared").textContent = "";
    showState(example);
  });
  for (const name of FIELDS) {
    fields[name].addEventListener("input", () => {
      if (name === "peer") fillForm();
      changed();
    });
  }
  for (const field of FORM) {
    byId(`peer-${field.id}`).addEventListener("input", () => {
      formChanged(field);
      changed();
    });
  }
  for (const name of ["policy", "edited"] as const) {
    const input = fields[name];
    input.addEventListener("scroll", () => byId(`${name}-lines`).scrollTop = input.scrollTop);
  }
  byId("share").addEventListener("click", () => void share());
  globalThis.addEventListener("hashchange", () => {
    if (location.hash.startsWith("#v")) void openState(); // else it is a link to a part of the page
  });
  void openState();
}

start();
