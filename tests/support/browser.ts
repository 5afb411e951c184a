/** A headless Chromium, driven by puppeteer-core, and a static server for a folder. */

import { readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { need, succeeds } from "./suite.ts";

const COMMANDS = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];
const PATHS = COMMANDS.flatMap((name) => [`/usr/bin/${name}`, `/usr/local/bin/${name}`]);

const executable = PATHS.find((path) => statSync(path, { throwIfNoEntry: false })?.isFile());

/** The need for a browser. */
export const chromium = need(
  "chromium (Debian: chromium-headless-shell)",
  () => executable !== undefined && succeeds(executable, "--version"),
);

/** The part of puppeteer-core that tests use. */
export interface Tab {
  goto(url: string): Promise<unknown>;
  url(): string;
  reload(): Promise<unknown>;
  evaluate<T, A extends readonly unknown[]>(
    run: ((...args: A) => T) | string,
    ...args: A
  ): Promise<Awaited<T>>;
  waitForFunction<A extends readonly unknown[]>(
    run: (...args: A) => unknown,
    options?: { readonly timeout?: number },
    ...args: A
  ): Promise<unknown>;
  setViewport(size: { readonly width: number; readonly height: number }): Promise<void>;
  emulateMediaFeatures(
    features: readonly { readonly name: string; readonly value: string }[],
  ): Promise<void>;
  setOfflineMode(isOffline: boolean): Promise<void>;
  setDefaultTimeout(ms: number): void;
  readonly keyboard: {
    press(key: string): Promise<void>;
    type(text: string): Promise<void>;
  };
  on(event: string, listener: (value: never) => void): void;
  close(): Promise<void>;
}

/** The part of puppeteer-core that tests use. */
export interface Browser {
  newPage(): Promise<Tab>;
  close(): Promise<void>;
}

const packages = new URL("../packages/package.json", import.meta.url);
const resolve = (name: string) => createRequire(packages).resolve(name);

/** How long a browser may take for one step, on a busy machine. */
export const MAX_WAIT_MS = 240_000;

/** Starts a browser. Its pages are trusted, so that it may run as root, without a sandbox. */
export async function startBrowser(): Promise<Browser> {
  const puppeteer = await import(pathToFileURL(resolve("puppeteer-core")).href);
  return await puppeteer.launch({
    executablePath: executable,
    headless: "shell",
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
    timeout: MAX_WAIT_MS,
    protocolTimeout: MAX_WAIT_MS,
  });
}

/** The source of axe, which checks a page for accessibility. */
export function axeSource(): string {
  return readFileSync(resolve("axe-core/axe.min.js"), "utf8");
}

const TYPES: { readonly [extension: string]: string } = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css",
  ".js": "text/javascript",
  ".svg": "image/svg+xml",
};

/** Serves the files of a folder on localhost. */
export async function serveFolder(
  folder: string,
): Promise<{ readonly url: string; close(): void }> {
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url!, "http://localhost").pathname);
    const file = join(folder, path); // join() of an absolute path cannot leave the folder
    if (statSync(file, { throwIfNoEntry: false })?.isFile() !== true) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "text/plain" });
    response.end(readFileSync(file));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
