// Parses every source of the tree with clang++ and libc++.
//   node check_libcxx.mjs linux|macos COMPILE_COMMANDS JOBS [PART_OF_PATH]
// Exits with 1 when clang has anything to say about one of our files.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, '../..');
const [platform, commandsPath, jobs, part = ''] = process.argv.slice(2);

// Definitions, include folders, standard and warnings of a command line; the rest
// is GCC's and the build's.
function keptArguments(command) {
  const kept = [];
  const words = command.match(/(?:\\.|"(?:\\.|[^"\\])*"|[^\s"\\])+/g).map((word) => word.replace(/\\(.)|"/g, '$1'));
  for (let i = 1; i < words.length; ++i) {
    if (words[i] === '-isystem') kept.push('-isystem', words[++i]);
    else if (/^-[DI]/.test(words[i]) || /^-std=/.test(words[i])) kept.push(words[i]);
    else if (/^-W/.test(words[i]) && !/^-W[lap],|restrict$/.test(words[i])) kept.push(words[i]);
  }
  return kept;
}

// Folders that clang searches by itself for this system, libc++'s first.
async function systemFolders() {
  const { output } = await run('clang++', ['-stdlib=libc++', '-E', '-v', '-x', 'c++', '/dev/null']);
  const listed = output.match(/#include <\.\.\.> search starts here:\n([\s\S]*?)End of search list/)[1];
  return listed.trim().split('\n').map((line) => line.trim());
}

// A compiler for macOS finds nothing by itself here. glibc's headers stand in for
// Apple's, except where apple/ has others.
async function platformArguments() {
  if (platform !== 'macos') return ['-stdlib=libc++'];
  const folders = await systemFolders();
  return [
    '--target=arm64-apple-macos14.0', '-stdlib=libc++', '-nostdinc', '-nostdinc++', '-fblocks',
    '-U__nonnull', '-D_GNU_SOURCE', '-D_DEFAULT_SOURCE', // as glibc's headers need
    ...[join(here, 'apple'), folders[0], ...folders.filter((folder) => folder.includes('/clang/')),
      '/usr/aarch64-linux-gnu/include', ...folders.slice(1).filter((folder) => !folder.includes('/clang/'))]
      .flatMap((folder) => ['-isystem', folder]),
  ];
}

function run(program, args, cwd) {
  return new Promise((done) => {
    const child = spawn(program, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (data) => { output += data; });
    child.stderr.on('data', (data) => { output += data; });
    child.on('close', (code) => done({ code, output }));
  });
}

const common = [...(await platformArguments()), '-fsyntax-only', '-fno-caret-diagnostics', '-ferror-limit=20'];
const entries = JSON.parse(readFileSync(commandsPath, 'utf8'))
  .filter(({ file }) => file.startsWith(`${root}/`) && file.includes(part));
let failed = 0;
let next = 0;
const begin = Date.now();

async function work() {
  while (next < entries.length) {
    const { file, command, directory } = entries[next++];
    if (next % 25 === 0) console.error(`parsing ${next} of ${entries.length}`);
    const { code, output } = await run('clang++', [...keptArguments(command), ...common, file], directory);
    if (code === 0 && output.trim() === '') continue;
    ++failed;
    console.log(`${file.slice(root.length + 1)}:\n${output.trim()}`);
  }
}

await Promise.all(Array.from({ length: Number(jobs) }, work));
const seconds = Math.round((Date.now() - begin) / 1000);
console.log(`${entries.length} sources, ${failed} with errors or warnings, ${seconds} s`);
process.exit(failed === 0 && entries.length > 0 ? 0 : 1);
