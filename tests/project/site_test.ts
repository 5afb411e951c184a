/** The documentation site, in a real browser: links, errors, accessibility, search and the playground. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Script } from "node:vm";
import { VOCABULARIES } from "../../interop/vocabularies.ts";
import { parsePolicy } from "../../policy/mod.ts";
import { parse as parseYaml } from "yaml";
import { EXAMPLES } from "../../tools/site/client/examples.ts";
import { fragmentOf, type State } from "../../tools/site/client/state.ts";
import {
  axeSource,
  type Browser,
  chromium,
  MAX_WAIT_MS,
  serveFolder,
  startBrowser,
  type Tab,
} from "../support/browser.ts";
import { packagesOf } from "../support/packages.ts";
import { soak, testWith } from "../support/suite.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const site = join(root, "build/docs");
const installed = packagesOf("tools/site");
const needed = [installed, packagesOf("tests/packages"), chromium];

if (installed.met) execFileSync("node", ["tools/site/build.ts"], { cwd: root, stdio: "ignore" });

/** All HTML files, relative to the site. */
const pages = globSync("**/*.html", { cwd: site }).sort();

let browser: Browser | undefined;
let server: Awaited<ReturnType<typeof serveFolder>> | undefined;
after(async () => {
  server?.close();
  await browser?.close();
});

/** Everything that the console has shown, and every request that has failed, in all tabs. */
const complaints: string[] = [];

/** Opens a tab that records complaints. */
async function openTab(): Promise<Tab> {
  browser ??= await startBrowser();
  const tab = await browser.newPage();
  tab.on("console", (message: { type(): string; text(): string }) => {
    const type = message.type();
    if (type === "error" || type === "warn") complaints.push(`${tab.url()}: ${message.text()}`);
  });
  tab.on("pageerror", (error: Error) => complaints.push(`${tab.url()}: ${error.message}`));
  tab.on("requestfailed", (request: { url(): string }) => {
    complaints.push(`${tab.url()}: cannot load ${request.url()}`);
  });
  tab.on("dialog", (dialog: { dismiss(): Promise<void> }) => {
    complaints.push(`${tab.url()}: a dialog`);
    void dialog.dismiss();
  });
  tab.setDefaultTimeout(MAX_WAIT_MS);
  await tab.setViewport({ width: 1280, height: 900 });
  return tab;
}

/** The URL of a page, opened as a file: no server and no network. */
const fileUrl = (page: string) => pathToFileURL(join(site, page)).href;

async function httpUrl(page: string): Promise<string> {
  server ??= await serveFolder(site);
  return `${server.url}/${page}`;
}

/** What the site's pages look like to axe. */
interface Axe {
  run(
    document: Document,
    options: object,
  ): Promise<{ violations: { id: string; nodes: { html: string; failureSummary: string }[] }[] }>;
}

/** Returns the violations that axe finds, with the rule about the contrast of colors alone, without it, or all. */
async function violations(
  tab: Tab,
  contrast: "alone" | "without" | "with",
): Promise<readonly string[]> {
  const found = await tab.evaluate(
    async (contrast) => {
      const { axe } = globalThis as unknown as { axe: Axe };
      const rule = "color-contrast";
      const { violations } = await axe.run(document, {
        preload: false, // style sheets are not fetched again
        ...(contrast === "alone" && { runOnly: { type: "rule", values: [rule] } }),
        ...(contrast === "without" && { rules: { [rule]: { enabled: false } } }),
      });
      return violations.flatMap(({ id, nodes }) =>
        nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 200)}: ${failureSummary}`)
      );
    },
    contrast,
  );
  return found.map((each) => `${tab.url()}: ${each}`);
}

const useTheme = (tab: Tab, value: "light" | "dark") =>
  tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value }]);

/** Pages of each kind. */
const SAMPLE = [
  "index.html",
  "playground.html",
  "docs/docker.html",
  "bench/servers/results.html",
  "reference/otel.html",
];

/** `npm run test:soak` opens all pages, and checks the accessibility of all but some examples. */
const isFull = soak(0, 1) === 1;
const opened = pages.filter((page, at) => isFull || SAMPLE.includes(page) || at % 8 === 0);
const checkedByAxe = pages.filter((page) =>
  SAMPLE.includes(page) || (isFull && !page.startsWith("examples/"))
);

testWith([installed], "npm run docs writes each page, its Markdown twin, and llms.txt", () => {
  const exports = Object.keys(JSON.parse(readFileSync(join(root, "deno.json"), "utf8")).exports);
  for (const entry of exports) {
    if (entry === "./cli") continue; // the command has a manual page
    const name = entry === "." ? "ucred" : entry.slice(2);
    assert.ok(pages.includes(`reference/${name}.html`), entry);
  }
  for (const document of globSync(["*.md", "docs/**/*.md"], { cwd: root })) {
    assert.ok(pages.includes(document.replace(/\.md$/, ".html")), document);
    assert.equal(
      readFileSync(join(site, document), "utf8"),
      readFileSync(join(root, document), "utf8"),
    );
  }
  const list = readFileSync(join(site, "llms.txt"), "utf8");
  for (const page of pages) {
    const twin = page.replace(/\.html$/, ".md");
    assert.ok(existsSync(join(site, twin)), twin);
    if (page.startsWith("docs/")) assert.ok(list.includes(`](${twin})`), twin);
  }
});

testWith([installed], "the bundles of the site import nothing and contain no node: module", () => {
  for (const name of ["site.js", "search.js", "playground.js"]) {
    const text = readFileSync(join(site, name), "utf8");
    new Script(text); // a static import would be a syntax error
    assert.doesNotMatch(text, /["'`]node:|\brequire\(|\bimport\(/, name);
  }
});

testWith([installed], "every link of the site leads to a file, and to an element in it", () => {
  const valuesIn = (text: string, name: string) =>
    [...text.matchAll(new RegExp(` ${name}="([^"]*)"`, "g"))].map(([, value]) => value!);
  const texts = new Map(pages.map((page) => [page, readFileSync(join(site, page), "utf8")]));
  const ids = new Map([...texts].map(([page, text]) => [page, valuesIn(text, "id")]));
  let count = 0;
  for (const [page, text] of texts) {
    const own = ids.get(page)!;
    assert.equal(new Set(own).size, own.length, `${page}: an id is used twice`);
    for (const link of [...valuesIn(text, "href"), ...valuesIn(text, "src")]) {
      if (/^https?:/.test(link)) continue; // of others
      const [path = "", anchor] = link.split("#").map(decodeURIComponent);
      const target = path === "" ? page : join(dirname(page), path);
      assert.ok(existsSync(join(site, target)), `${page}: ${link}`);
      if (anchor !== undefined && !anchor.startsWith("v1.")) {
        assert.ok(ids.get(target)?.includes(anchor), `${page}: ${link}`);
      }
      count++;
    }
  }
  assert.ok(count > 5000);
});

testWith(needed, "pages open as files without errors, and are no wider than a phone", async () => {
  const tab = await openTab();
  await tab.setOfflineMode(true);
  await tab.setViewport({ width: 360, height: 740 });
  for (const page of opened) {
    await tab.goto(fileUrl(page));
    const width = await tab.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= 360, `${page}: ${width} pixels wide on a phone`);
  }
  await tab.close();
  assert.deepEqual(complaints.splice(0), []);
});

testWith(needed, "axe finds nothing in light and dark, on a desk and on a phone", async () => {
  const tab = await openTab();
  const axe = axeSource();
  for (const page of checkedByAxe) {
    await useTheme(tab, "light");
    await tab.setViewport({ width: 1280, height: 900 });
    await tab.goto(fileUrl(page));
    await tab.evaluate(axe);
    assert.deepEqual(await violations(tab, "with"), []);
    await useTheme(tab, "dark");
    assert.deepEqual(await violations(tab, "alone"), []);
    await tab.setViewport({ width: 360, height: 740 });
    assert.deepEqual(await violations(tab, "without"), []);
  }
  await tab.close();
  assert.deepEqual(complaints.splice(0), []);
});

const textOf = (tab: Tab, selector: string) =>
  tab.evaluate((selector) => document.querySelector(selector)!.textContent, selector);

testWith(needed, "the search finds a page by keyboard, as a file and over HTTP", async () => {
  for (const url of [fileUrl("docs/why.html"), await httpUrl("docs/why.html")]) {
    const tab = await openTab();
    await tab.goto(url);
    await tab.keyboard.press("/");
    await tab.keyboard.type("supplementary groups");
    await tab.waitForFunction(() => document.querySelectorAll("#results a").length > 0);
    assert.match((await textOf(tab, "#count"))!, /^\d+ results?$/);
    const hrefs = await tab.evaluate(() =>
      [...document.querySelectorAll<HTMLAnchorElement>("#results a")].map(({ href }) => href)
    );
    assert.ok(hrefs.some((href) => href.includes("docs/identity.html")), hrefs.join("\n"));
    await tab.keyboard.press("ArrowDown");
    const focused = await tab.evaluate(() => (document.activeElement as HTMLAnchorElement).href);
    assert.equal(focused, hrefs[0]);
    await tab.keyboard.press("Enter");
    await tab.waitForFunction((before) => location.href !== before, {}, url);
    await tab.close();
  }
  assert.deepEqual(complaints.splice(0), []);
});

testWith(needed, "the theme button changes the colors, and the next page keeps them", async () => {
  const tab = await openTab();
  await useTheme(tab, "light");
  await tab.goto(await httpUrl("index.html"));
  const background = () => tab.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const before = await background();
  await tab.evaluate(() => document.querySelector<HTMLElement>("#theme")!.click());
  const dark = await background();
  assert.notEqual(dark, before);
  await tab.goto(await httpUrl("docs/policy.html"));
  assert.equal(await background(), dark);
  const pressed = () =>
    tab.evaluate(() => document.querySelector("#theme")!.getAttribute("aria-pressed"));
  assert.equal(await pressed(), "true");
  await tab.evaluate(() => document.querySelector<HTMLElement>("#theme")!.click());
  assert.deepEqual([await background(), await pressed()], [before, "false"]);
  await tab.close();
  assert.deepEqual(complaints.splice(0), []);
});

/** Sets a field of the playground as typing does, and waits for the evaluation. */
async function fill(tab: Tab, id: string, text: string): Promise<void> {
  await tab.evaluate(
    (id, text) => {
      const field = document.querySelector<HTMLInputElement>(`#${id}`)!;
      field.value = text;
      document.querySelector("#shared")!.textContent = "waiting";
      field.dispatchEvent(new Event("input", { bubbles: true }));
    },
    id,
    text,
  );
  await tab.waitForFunction(() => document.querySelector("#shared")!.textContent === "");
}

async function openPlayground(fragment = ""): Promise<Tab> {
  const tab = await openTab();
  await tab.goto(fileUrl("playground.html") + fragment);
  await tab.waitForFunction(() => document.querySelector("#decision")!.textContent !== "");
  return tab;
}

testWith(needed, "the playground explains each example as the library does", async () => {
  const tab = await openPlayground();
  for (const [at, example] of EXAMPLES.entries()) {
    await tab.evaluate((at) => {
      const select = document.querySelector<HTMLSelectElement>("#example")!;
      select.value = String(at);
      select.dispatchEvent(new Event("change"));
    }, at);
    const { title, policy: text, peer, action, attributes, accounts } = example;
    const { users, groups } = parseYaml(accounts);
    const names = {
      uid: (name: string) => users[name],
      gid: (name: string) => groups[name],
    };
    const policy = parsePolicy(text, { accounts: names, vocabularies: VOCABULARIES });
    const { user, groups: members, ...facts } = JSON.parse(peer);
    const explanation = policy.explain(
      {
        ...facts,
        uid: users[user],
        ...(members && { groups: members.map((name: string) => groups[name]) }),
      },
      {
        action: action === "" ? undefined : action,
        attributes: attributes === "" ? undefined : JSON.parse(attributes),
      },
    );
    assert.equal(await textOf(tab, "#explanation"), String(explanation), title);
    const { allowed, reason } = explanation.decision;
    const verdict = `${allowed ? "Allowed" : "Denied"}. ${reason}`;
    assert.equal(await textOf(tab, "#decision"), verdict, title);
    assert.equal(await textOf(tab, "#problems"), "", title);
    const doubts = await tab.evaluate(() =>
      document.querySelectorAll("#findings .error, #findings .warning, #tests .error").length
    );
    assert.equal(doubts, 0, `${title}: ${await textOf(tab, "#findings")}`);
  }
  assert.ok(new Set(EXAMPLES.map(({ policy }) => /^about: (\w+)/m.exec(policy)?.[1])).size >= 5);
  await tab.close();
  assert.deepEqual(complaints.splice(0), []);
});

testWith(
  needed,
  "the playground decides while somebody types, and never without a policy",
  async () => {
    const tab = await openPlayground();
    await fill(tab, "accounts", "users: { ada: 7 }\ngroups: { wheel: 10 }");
    await fill(tab, "action", "");
    await fill(
      tab,
      "policy",
      "version: 1\nrules:\n  - { name: admins, when: { group: wheel }, allow: full }\n" +
        "  - { name: ada, when: { user: ada }, allow: read }\n",
    );
    await fill(tab, "peer", '{ "user": "ada", "gid": 7, "groups": [] }');
    assert.equal(await textOf(tab, "#decision"), 'Allowed. Rule "ada" allows it: read');
    const cells = () =>
      tab.evaluate(() =>
        [...document.querySelectorAll("#table tbody tr")].map((row) =>
          [...row.children].map(({ textContent }) => textContent)
        )
      );
    assert.deepEqual(await cells(), [
      ["The peer and its request", "7", "7", ""],
      ["admins allow", "no wheel", "", "no matchwould match if the peer were in group wheel"],
      ["ada allow", "", "yes user ada", "decided"],
    ]);
    assert.match((await textOf(tab, "#who"))!, /^in group|^any uid; in group 10 \(wheel\)/m);
    // The form changes the JSON. An unknown fact does not allow.
    await fill(tab, "peer-groups", "wheel");
    assert.equal(await textOf(tab, "#decision"), 'Allowed. Rule "admins" allows it: full');
    await fill(tab, "peer-user", "");
    await fill(tab, "peer-groups", "");
    assert.match((await textOf(tab, "#decision"))!, /^Denied\. No rule matches; unknown: .*groups/);
    // Mistakes have their line and column, and there is no decision.
    await fill(
      tab,
      "policy",
      "version: 1\nrules:\n  - { name: a, when: { uid: nobody }, allow: true }\n",
    );
    assert.match((await textOf(tab, "#problems"))!, /^Policy:3:\d+ /);
    assert.match((await textOf(tab, "#decision"))!, /^No decision: 1 problem$/);
    assert.equal(await textOf(tab, "#table"), "");
    await tab.evaluate(() => document.querySelector<HTMLElement>("#problems button")!.click());
    const selected = await tab.evaluate(() => {
      const { value, selectionStart } = document.querySelector<HTMLTextAreaElement>("#policy")!;
      return value.slice(0, selectionStart).split("\n").length;
    });
    assert.equal(selected, 3);
    for (
      const [policy, problem] of [
        ["version: 1\nrules: [\n", /^Policy:\d+:\d+ /],
        ["version: 1\nrules: [{ name: a, when: { user: bob }, allow: true }]", /no user "bob"/],
        ["", /Policy/],
      ] as const
    ) {
      await fill(tab, "policy", policy);
      assert.match((await textOf(tab, "#problems"))!, problem);
      assert.match((await textOf(tab, "#decision"))!, /^No decision/);
    }
    // A mistake in the peer or the attributes is no decision either.
    await fill(tab, "policy", "version: 1\nrules: [{ name: all, allow: true }]\n");
    assert.match((await textOf(tab, "#decision"))!, /^Allowed/);
    for (
      const [field, text, problem] of [
        ["peer", '{ "uid": "0" }', /^Peer uid: /],
        ["peer", '{ "__proto__": { "uid": 0 } }', /^Peer __proto__: /],
        ["peer", "[", /^Peer:1:\d+ /],
        ["peer", '{ "user": "eve" }', /^Peer user: no user "eve"/],
        ["attributes", '{ "owner": 0 }', /^Attributes the policy has no about/],
        ["accounts", "users: { ada: -1 }", /^Accounts users\.ada must be an id/],
      ] as const
    ) {
      const before = await tab.evaluate(
        (field) => document.querySelector<HTMLInputElement>(`#${field}`)!.value,
        field,
      );
      await fill(tab, field, text);
      assert.match((await textOf(tab, "#problems"))!, problem);
      assert.match((await textOf(tab, "#decision"))!, /^No decision/);
      await fill(tab, field, before);
    }
    await tab.close();
    assert.deepEqual(complaints.splice(0), []);
  },
);

testWith(
  needed,
  "the playground compares policies, lints, and decides the case that differs",
  async () => {
    const tab = await openPlayground();
    const rules = (range: string) =>
      `version: 1\nrules:\n  - { name: people, when: { uid: ${range} }, allow: read }\n`;
    await fill(tab, "action", "");
    await fill(tab, "policy", rules("1000-1999"));
    await fill(tab, "edited", rules("1000-2000"));
    assert.match((await textOf(tab, "#difference"))!, /^The edited policy allows more\..*2000/);
    await fill(tab, "edited", rules("1000-1998"));
    assert.match((await textOf(tab, "#difference"))!, /^The edited policy allows less/);
    await tab.evaluate(() => {
      document.querySelector("#shared")!.textContent = "waiting";
      document.querySelector<HTMLElement>("#difference button")!.click();
    });
    await tab.waitForFunction(() => document.querySelector("#shared")!.textContent === "");
    const peer = await tab.evaluate(() =>
      document.querySelector<HTMLTextAreaElement>("#peer")!.value
    );
    assert.equal(JSON.parse(peer).uid, 1999);
    assert.match((await textOf(tab, "#decision"))!, /^Allowed/);
    await fill(tab, "edited", rules("1000-1999"));
    assert.equal(await textOf(tab, "#difference"), "No decision changes.");
    await fill(
      tab,
      "policy",
      `${rules("1000-1999")}  - { name: intern, when: { uid: 1500 }, allow: read }\n`,
    );
    assert.match((await textOf(tab, "#findings"))!, /error .*never/i);
    await tab.close();
    assert.deepEqual(complaints.splice(0), []);
  },
);

testWith(
  needed,
  "the policies of the documents open in the playground, with their tests",
  async () => {
    const links = pages.flatMap((page) =>
      [
        ...readFileSync(join(site, page), "utf8").matchAll(
          /href="[^"]*playground\.html(#v1\.[^"]*)"/g,
        ),
      ]
        .map(([, fragment]) => ({ page, fragment: fragment! }))
    );
    assert.ok(links.length >= 10);
    const tab = await openTab();
    for (const { page, fragment } of links.filter((_, at) => isFull || at % 5 === 0)) {
      await tab.goto("about:blank"); // a change of the fragment alone would not load the page
      await tab.goto(fileUrl("playground.html") + fragment);
      await tab.waitForFunction(() => document.querySelector("#decision")!.textContent !== "");
      assert.equal(await textOf(tab, "#problems"), "", page);
      assert.match((await textOf(tab, "#decision"))!, /^(?:Allowed|Denied)\. /, page);
      const failed = await tab.evaluate(() => document.querySelectorAll("#tests .error").length);
      assert.equal(failed, 0, page);
    }
    await tab.close();
    assert.deepEqual(complaints.splice(0), []);
  },
);

const valuesOf = (tab: Tab) =>
  tab.evaluate(() =>
    ["policy", "edited", "peer", "action", "attributes", "accounts"].map((id) =>
      document.querySelector<HTMLInputElement>(`#${id}`)!.value
    )
  );

testWith(
  needed,
  "a link to the playground has all fields, also those that look like HTML",
  async () => {
    const tab = await openPlayground();
    await fill(tab, "policy", "version: 1\nrules: [{ name: <b>ä€</b>, allow: read }]\n");
    await fill(tab, "action", "<img src=x>");
    await tab.evaluate(() => document.querySelector<HTMLElement>("#share")!.click());
    await tab.waitForFunction(() => /link/i.test(document.querySelector("#shared")!.textContent!));
    const hash = await tab.evaluate(() => location.hash);
    const other = await openPlayground(hash);
    assert.deepEqual(await valuesOf(other), await valuesOf(tab));
    assert.equal(await textOf(other, "#decision"), 'Allowed. Rule "<b>ä€</b>" allows it: read');
    await tab.close();
    await other.close();
    assert.deepEqual(complaints.splice(0), []);
  },
);

testWith(
  needed,
  "a link of a stranger runs no script, adds no element and sends nothing",
  async () => {
    const attack = '"><img src=x onerror=alert(1)><script>alert(1)</script>{{1+1}}';
    const all: State = {
      policy: `version: 1\nrules: [{ name: '${attack}', deny: '${attack}' }]\n`,
      edited: `version: 1\nrules: [{ name: '${attack}', allow: '${attack}' }]\n`,
      peer: `{ "label": ${JSON.stringify(attack)}, "uid": 0 }`,
      action: attack,
      attributes: "",
      accounts: `users: { '${attack}': 0 }\n`,
    };
    const encode = async (data: unknown) => {
      const stream = new Blob([typeof data === "string" ? data : JSON.stringify(data)]).stream();
      const bytes = await new Response(
        stream.pipeThrough(new CompressionStream("deflate-raw")),
      ).arrayBuffer();
      return `#v1.${Buffer.from(bytes).toString("base64url")}`;
    };
    const fragments = [
      await fragmentOf(all),
      await fragmentOf({ ...all, policy: attack, accounts: attack, peer: attack }),
      await encode({ ...all, policy: { toString: "alert(1)" } }),
      await encode({ __proto__: null, policy: "" }),
      await encode('{"__proto__":{"policy":"version: 1"},"constructor":{}}'),
      await encode("0".repeat(40_000_000)), // 40 kB that decompress to 40 MB
      `#v1.${"A".repeat(200_000)}`,
      "#v1.%%%",
      "#v1.",
      "#v2.javascript:alert(1)",
      `#${encodeURIComponent(attack)}`,
    ];
    const plain = await openPlayground();
    const count = (tab: Tab) =>
      tab.evaluate(() => document.querySelectorAll("script, img, iframe, object, style").length);
    const usual = await count(plain);
    // The browser refuses to parse HTML from a text, whatever the code of the page does.
    const refused = await plain.evaluate((attack) => {
      try {
        document.body.innerHTML = attack;
        return false;
      } catch (error) {
        return error instanceof TypeError;
      }
    }, attack);
    assert.ok(refused, "innerHTML");
    await plain.close();
    complaints.length = 0; // the refusal is logged
    const tab = await openTab();
    /** Opens the playground with a fragment, and waits for its decision. */
    const open = async (fragment: string) => {
      await tab.goto("about:blank"); // a change of the fragment alone would not load the page
      await tab.goto(fileUrl("playground.html") + fragment);
      await tab.waitForFunction(() => document.querySelector("#decision")!.textContent !== "");
    };
    for (const fragment of fragments) {
      const name = fragment.slice(0, 40);
      await open(fragment);
      assert.equal(await count(tab), usual, name);
      assert.match((await textOf(tab, "#decision"))!, /^(?:Allowed|Denied|No decision)/, name);
      assert.deepEqual(complaints.splice(0), [], name);
    }
    // With the first one, the policy still decides, and shows the attack as text.
    await open(fragments[0]!);
    assert.ok((await textOf(tab, "#decision"))!.startsWith(`Denied. Rule "${attack}"`));
    await tab.close();
  },
);
