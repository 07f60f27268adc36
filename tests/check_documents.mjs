// Do links in the Markdown files lead somewhere, and do the files that they name exist?
//   node tests/check_documents.mjs SOURCE_FOLDER
// Exits 1 with a line for each that does not; 77 (skipped, to ctest) outside of a git checkout.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

const root = process.argv[2];

function trackedFiles() {
  try {
    const options = { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] };
    return execFileSync("git", ["-C", root, "ls-files", "-z"], options).split("\0").filter(Boolean);
  } catch {
    console.log("not a git checkout: skipped");
    process.exit(77);
  }
}

const files = trackedFiles();
const folders = new Set(files.filter((file) => file.includes("/")).map((file) => file.split("/")[0]));
const withoutCode = (text) => text.replace(/^```.*?^```/gms, "").replace(/^ {4}.*$/gm, "");

// As GitHub makes them from headings.
function anchorsOf(text) {
  const headings = [...withoutCode(text).matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading);
  return headings.map((heading) =>
    heading
      .toLowerCase()
      .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );
}

function problemsOf(file) {
  const text = readFileSync(join(root, file), "utf8");
  const problems = [];
  for (const [, target] of withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^[a-z]+:/.test(target)) continue;
    const [path, anchor] = target.split("#");
    const linked = path === "" ? file : normalize(join(dirname(file), path));
    if (!existsSync(join(root, linked))) problems.push(`the link ${target} leads nowhere`);
    else if (anchor && !anchorsOf(readFileSync(join(root, linked), "utf8")).includes(anchor))
      problems.push(`${linked} has no heading #${anchor}`);
  }
  // `services/model/scheduler.cc`; NAME stands for any.
  for (const [, path] of text.matchAll(/`([\w.-]+(?:\/[\w.-]+)+)\/?`/g)) {
    if (!folders.has(path.split("/")[0]) || path.includes("NAME")) continue;
    const stem = (name) => files.some((tracked) => tracked.startsWith(`${name}.`));
    if (!existsSync(join(root, path)) && !stem(path)) problems.push(`there is no ${path}`);
  }
  return problems.map((problem) => `${file}: ${problem}`);
}

const problems = files.filter((file) => file.endsWith(".md") && existsSync(join(root, file))).flatMap(problemsOf);
for (const problem of problems) console.log(problem);
process.exit(problems.length === 0 ? 0 : 1);
