// Chromium for the tests, and what they watch while a page is open.
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { chromium } from "playwright-core";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const NAMES = ["chromium", "chromium-browser", "google-chrome", "chrome"];
const MAC_APPS = [
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

// $CHROMIUM, or the first of the usual names in $PATH; undefined without any.
export function findChromium() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const folders = (process.env.PATH ?? "").split(delimiter);
  return [...NAMES.flatMap((name) => folders.map((folder) => join(folder, name))), ...MAC_APPS].find(
    isExecutable,
  );
}

export function launch(executablePath) {
  // Playwright makes a fresh profile for every launch.
  return chromium.launch({ executablePath, args: FLAGS, headless: true });
}

// Opens a file in its own context. `complaints` gathers everything that a clean
// page does not do: log errors, throw, or ask for anything but itself.
export async function openPage(browser, url, options) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(120_000); // a busy machine draws slowly
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type()))
      complaints.push(`console ${message.type()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`exception: ${error.message}`));
  page.on("request", (request) => {
    if (request.url() !== url && !/^(data|blob):/.test(request.url()))
      complaints.push(`request: ${request.url()}`);
  });
  page.on("requestfailed", (request) => complaints.push(`failed: ${request.url()}`));
  await page.goto(url);
  await page.waitForFunction(() => document.documentElement.dataset.ready === "true");
  return { context, page, complaints };
}
