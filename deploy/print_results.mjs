// Prints the outcome of a study: node deploy/print_results.mjs outputs/results
import { readFileSync } from "node:fs";
import { join } from "node:path";

const RANKED = 6;
const EDGES = 4;

const read = (name) => JSON.parse(readFileSync(join(process.argv[2], name), "utf8"));
const percent = (rate) => `${(100 * rate.rate).toFixed(1)} %`;
const rate = (rate) => `${percent(rate).padStart(7)} [${(100 * rate.lower).toFixed(0)}, ${(100 * rate.upper).toFixed(0)}]`;
const effect = (estimate) =>
  estimate ? `${estimate.mean.toFixed(3)} [${estimate.lower.toFixed(3)}, ${estimate.upper.toFixed(3)}]` : "";

// Rows of cells, the first row being the heads; the first column to the left.
function printTable(title, rows) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const line = (row) =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column]))).join("   ");
  console.log(`\n${title}`);
  rows.forEach((row, index) => {
    console.log(`  ${line(row)}`);
    if (index === 0) console.log(`  ${widths.map((width) => "-".repeat(width)).join("   ")}`);
  });
}

function printRefusals(baseline) {
  const categories = baseline.categories.map((entry) => [entry.category, rate(entry.harmful), rate(entry.harmless)]);
  printTable(`Refusals of ${baseline.provenance.model.name}, with 95 % intervals`, [
    ["category", "harmful", "harmless"],
    ...categories,
    ["all", rate(baseline.harmful), rate(baseline.harmless)],
  ]);
}

function printRanking(patching) {
  printTable(`What carries refusal: the first ${RANKED} of ${patching.ranking.length} components by patching`, [
    ["component", "score", "harmful into harmless", "harmless into harmful"],
    ...patching.ranking
      .slice(0, RANKED)
      .map((entry) => [entry.component.name, entry.score.toFixed(3), effect(entry.denoising), effect(entry.noising)]),
  ]);
}

function printAblation(ablation) {
  const curve = ablation.curves[0];
  const random = new Map(curve.random.map((point) => [point.component_count, point]));
  printTable("Harmful prompts refused with components ablated", [
    ["components", "top of the ranking", "random ones", "harmless, top"],
    ...curve.top.map((point) => [
      String(point.component_count),
      rate(point.harmful),
      random.has(point.component_count) ? rate(random.get(point.component_count).harmful) : "",
      rate(point.harmless),
    ]),
  ]);
}

function printCircuit(circuit) {
  const size = ({ denoising, noising }) => Math.max(Math.abs(denoising?.mean ?? 0), Math.abs(noising?.mean ?? 0));
  const edges = [...circuit.edges].sort((a, b) => size(b) - size(a));
  printTable(`The circuit: the first ${Math.min(EDGES, edges.length)} of ${edges.length} edges, each patched by itself`, [
    ["edge", "harmful into harmless", "harmless into harmful"],
    ...edges
      .slice(0, EDGES)
      .map((edge) => [`${edge.sender} -> ${edge.receiver}`, effect(edge.denoising), effect(edge.noising)]),
  ]);
  const roles = ["member", "backup", "decoy"].map((name) => {
    const count = circuit.nodes.filter(({ role }) => role === `CIRCUIT_ROLE_${name.toUpperCase()}`).length;
    return `${count} ${name}${count === 1 ? "" : "s"}`;
  });
  const tenth = circuit.edge_curve.points.find(({ share }) => share === 0.1);
  console.log(
    `Nodes: ${roles.join(", ")}.` +
      (tenth ? ` On other prompts the best tenth of all edges does ${effect(tenth.faithfulness)} of what the model does.` : ""),
  );
}

function printDirection(direction) {
  const names = {
    NONE: "as it is",
    ABLATION: "ablated",
    AFFINE: "set to the harmless mean",
    SUBSPACE: "a subspace set so",
    RANDOM_ABLATION: "a random one ablated",
  };
  const rows = direction.outcomes
    .map((outcome) => [names[outcome.edit.replace("DIRECTION_EDIT_", "")], outcome])
    .filter(([name]) => name)
    .map(([name, outcome]) => [name, rate(outcome.harmful), rate(outcome.harmless), effect(outcome.harmless_kl)]);
  printTable("Refusals with the direction of refusal, on other prompts", [
    ["direction", "harmful", "harmless", "KL, harmless"],
    ...rows,
  ]);
}

function printVerdict(name, criterion) {
  if (!criterion) return;
  console.log(
    `${name}: ablating the top ${criterion.component_count} drops refusals by ${criterion.top_drop_points.toFixed(1)} ` +
      `points, random ones by ${criterion.random_drop_points.toFixed(1)} (threshold ${criterion.threshold_points}): ` +
      (criterion.met ? "MET" : "NOT MET"),
  );
}

printRefusals(read("01_baseline_results.json"));
printRanking(read("02_patching_results.json"));
const ablation = read("03_ablation_results.json");
printAblation(ablation);
printCircuit(read("05_circuit_results.json"));
printDirection(read("06_direction_results.json"));
console.log();
printVerdict("Criterion", ablation.criterion);
printVerdict("On held-out prompts", ablation.held_out_criterion);
