/** The theme, the menu on small screens, and the search, on every page. */

const { documentElement: html } = document;

const KEY = "ucred-theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

/** A page that was opened as a file may have no storage. */
function stored(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function isDark(): boolean {
  const { theme } = html.dataset;
  return theme === undefined ? dark.matches : theme === "dark";
}

// This script runs before the page is drawn, so that it never shows the other theme.
const chosen = stored();
if (chosen === "dark" || chosen === "light") html.dataset["theme"] = chosen;

function startTheme(): void {
  const button = document.querySelector<HTMLButtonElement>("#theme")!;
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    html.dataset["theme"] = theme;
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // The choice then lasts until the page is left.
    }
    show();
  });
  dark.addEventListener("change", show);
  show();
}

function startMenu(): void {
  const button = document.querySelector<HTMLButtonElement>("#menu")!;
  button.addEventListener("click", () => {
    const isOpen = html.classList.toggle("menu-open");
    button.setAttribute("aria-expanded", String(isOpen));
  });
}

/** The scripts that the search needs. */
const SCRIPTS = ["search-data.js", "search.js"] as const;

const root = () => html.dataset["root"] ?? "";

/** Allows no other script to be loaded. Browsers without trusted types rely on `script-src`. */
const policy = globalThis.trustedTypes?.createPolicy("ucred", {
  createScriptURL: (url: string) => {
    if (SCRIPTS.some((name) => url === `${root()}${name}`)) return url;
    throw new TypeError(`Cannot load ${url}`);
  },
});

function load(name: typeof SCRIPTS[number]): Promise<void> {
  const script = document.createElement("script");
  const url = `${root()}${name}`;
  script.src = policy?.createScriptURL(url) ?? url;
  return new Promise((resolve, reject) => {
    script.addEventListener("load", () => resolve());
    script.addEventListener("error", () => reject(new Error(`Cannot load ${name}`)));
    document.head.append(script);
  });
}

let loading: Promise<void> | undefined;

function startSearch(): void {
  const input = document.querySelector<HTMLInputElement>("#search")!;
  const found = document.querySelector<HTMLElement>("#found")!;
  const count = document.querySelector<HTMLElement>("#count")!;
  const results = document.querySelector<HTMLUListElement>("#results")!;
  const close = () => {
    found.hidden = true;
  };
  const search = async () => {
    const query = input.value.trim();
    if (query === "") {
      close();
      return;
    }
    try {
      // The data is loaded when it is first needed.
      await (loading ??= load("search-data.js").then(() => load("search.js")));
    } catch (error) {
      loading = undefined;
      count.textContent = (error as Error).message;
      found.hidden = false;
      return;
    }
    if (query !== input.value.trim()) return; // a newer search follows
    const hits = globalThis.ucredSearch!(query);
    count.textContent = hits.length === 0
      ? "Nothing found"
      : `${hits.length} ${hits.length === 1 ? "result" : "results"}`;
    results.replaceChildren(...hits.map(({ url, page, title, text }) => {
      const item = document.createElement("li");
      const link = document.createElement("a");
      link.href = `${root()}${url}`;
      const name = document.createElement("strong");
      name.textContent = title === page ? title : `${page}: ${title}`;
      const excerpt = document.createElement("span");
      excerpt.textContent = text;
      link.append(name, excerpt);
      item.append(link);
      return item;
    }));
    found.hidden = false;
  };
  input.addEventListener("input", () => void search());
  input.addEventListener("focus", () => void search());
  results.addEventListener("click", close);
  document.addEventListener("click", ({ target }) => {
    if (!(target as Element).closest(".search")) close();
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = (event.target as Element).matches("input, textarea, select");
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      input.focus();
    } else if (event.key === "Escape" && !found.hidden) {
      close();
      input.focus();
      close(); // focus opens it again
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      move(event);
    }
  });
  /** Arrow keys move between the input and the results. */
  function move(event: KeyboardEvent): void {
    const links = [input, ...results.querySelectorAll<HTMLElement>("a")];
    const at = links.indexOf(event.target as HTMLElement);
    if (found.hidden || at < 0) return;
    event.preventDefault();
    links[at + (event.key === "ArrowDown" ? 1 : -1)]?.focus();
  }
}

document.addEventListener("DOMContentLoaded", () => {
  startTheme();
  startMenu();
  startSearch();
});
