// Opens dashboards in headless Chromium: are the six views drawn, from the data,
// without an error and without a request? Keeps screenshots to be looked at.
//   node dashboard_test.mjs SERVER_PROGRAM RESULTS_FOLDER SCREENSHOT_FOLDER
// RESULTS_FOLDER may hold any study; what must be seen is read from its files.
// Exits 77 (skipped, to ctest) when there is no Chromium.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { findChromium, launch, openPage } from "./browser.mjs";

const [program, results, screenshots] = process.argv.slice(2);
const FILES = [
  "01_baseline_results.json",
  "02_patching_results.json",
  "03_ablation_results.json",
  "05_circuit_results.json",
];
const VIEWS = ["patching", "layers", "circuit", "faithfulness", "ablation", "categories"];
const WIDE = { viewport: { width: 1360, height: 900 } };

const chromiumPath = findChromium();
if (chromiumPath === undefined) {
  console.log("no Chromium in PATH (set CHROMIUM to its program): skipped");
  process.exit(77);
}

const scratch = mkdtempSync(join(tmpdir(), "abstract-dashboard-"));
mkdirSync(screenshots, { recursive: true });

function render(name, folder) {
  const output = join(scratch, `${name}.html`);
  execFileSync(program, ["--render-once", "--results", folder, "--output", output, "--log-level", "warning"]);
  return pathToFileURL(output).href;
}

const read = (file) => JSON.parse(readFileSync(join(results, file), "utf8"));
const [baseline, patching, ablation, circuit] = FILES.map(read);

// What Plotly drew in a view: numbers of marks, by their SVG classes.
const marks = (page, view) =>
  page.evaluate((id) => {
    const count = (selector) => document.querySelectorAll(`#${id} .plot ${selector}`).length;
    return {
      heatmaps: count(".heatmaplayer image"),
      bars: count(".barlayer .point path"),
      points: count(".scatterlayer .point"),
      lines: count(".scatterlayer .js-line"),
      intervals: count(".errorbar"),
      texts: count("text"),
      plots: count("svg.main-svg"),
    };
  }, view);

// The data that a view's plot was given.
const traces = (page, view) =>
  page.evaluate(
    (id) =>
      document.querySelector(`#${id} .plot`).data.map(({ type, name, x, y, z }) => ({
        type,
        name,
        x: x && [...x],
        y: y && [...y],
        z: z && z.map((row) => [...row]),
      })),
    view,
  );

async function choose(page, view, label) {
  await page.locator(`#${view} .segments label`, { hasText: label }).click();
}

const tests = {
  async "draws the six views from the data, without errors or requests"(browser) {
    const { context, page, complaints } = await openPage(browser, render("study", results), WIDE);
    const drawn = Object.fromEntries(
      await Promise.all(VIEWS.map(async (view) => [view, await marks(page, view)])),
    );
    for (const view of VIEWS) assert.ok(drawn[view].plots > 0, `${view} has no plot`);
    assert.ok(drawn.patching.heatmaps >= 1, "no heatmap");
    assert.ok(drawn.layers.bars >= patching.layer_count, "fewer bars than layers");
    assert.ok(drawn.circuit.points >= 3 && drawn.circuit.lines >= 2, "no circuit");
    assert.ok(drawn.faithfulness.points >= 3 * circuit.edge_curve.points.length, "no faithfulness curves");
    assert.ok(drawn.faithfulness.intervals >= 1, "no members left out");
    assert.ok(drawn.ablation.points >= ablation.curves[0].top.length * 2, "no ablation curves");
    assert.ok(drawn.categories.intervals >= 2 * (baseline.categories.length + 1), "no intervals by category");
    assert.equal(await page.locator(".missing:visible").count(), 0);
    assert.ok((await page.locator("#ranking tbody tr").count()) > 0, "no ranking");
    assert.ok((await page.locator("#responses tbody tr").count()) > 0, "no responses");
    assert.match(await page.locator("#title").innerText(), new RegExp(baseline.provenance.model.name));
    assert.match(await page.locator("#identity").innerText(), new RegExp(`seed ${baseline.provenance.seed}`));
    assert.match(
      await page.locator("#provenance").innerText(),
      new RegExp(baseline.provenance.model.model_hash.slice(0, 12)),
    );
    assert.deepEqual(complaints, []);
    await page.screenshot({ path: join(screenshots, "light.png"), fullPage: true });
    await context.close();
  },

  async "shows the numbers of the results files"(browser) {
    const { context, page } = await openPage(browser, render("numbers", results), WIDE);
    const [heatmap] = await traces(page, "patching");
    const { component, effect } = patching.effects.find(
      ({ component, direction }) =>
        component.kind === "COMPONENT_KIND_RESID_PRE" &&
        direction === "PATCH_DIRECTION_DENOISING" &&
        component.layer === 1,
    );
    const column = [...patching.positions].sort((a, b) => a - b).indexOf(component.position);
    assert.equal(heatmap.z.length, patching.layer_count);
    assert.equal(heatmap.z[1][column], effect.mean);
    const top = (await traces(page, "ablation")).find(({ name }) => name === "harmful, top K");
    assert.deepEqual(
      top.y.map((rate) => rate.toFixed(6)),
      ablation.curves[0].top.map(({ harmful }) => (100 * harmful.rate).toFixed(6)),
    );
    const edges = (await traces(page, "faithfulness")).find(({ name }) => name === "edges");
    assert.deepEqual(
      edges.x.map((share) => share.toFixed(6)),
      circuit.edge_curve.points.map(({ share }) => (100 * share).toFixed(6)),
    );
    assert.deepEqual(edges.y, circuit.edge_curve.points.map(({ faithfulness }) => faithfulness.mean));
    const lost = Math.max(...circuit.minimality.map(({ drop }) => drop.mean));
    assert.equal((await traces(page, "minimality"))[0].x.at(-1), lost);
    const facts = await page.locator("#faithfulness .facts").innerText();
    for (const shown of [circuit.faithfulness.mean.toFixed(3), circuit.stability.mean_jaccard.toFixed(2)])
      assert.ok(facts.includes(shown), `${shown} is not in: ${facts}`);
    const harmful = (await traces(page, "categories")).find(({ name }) => name === "harmful requests");
    assert.equal(harmful.x.at(-1).toFixed(6), (100 * baseline.harmful.rate).toFixed(6));
    await context.close();
  },

  async "switches kind, direction and ablation method"(browser) {
    const { context, page, complaints } = await openPage(browser, render("switches", results), WIDE);
    const first = (await traces(page, "patching"))[0].z;
    await choose(page, "patching", "harmless → harmful");
    assert.notDeepEqual((await traces(page, "patching"))[0].z, first);
    await choose(page, "patching", "Heads");
    assert.equal((await traces(page, "patching"))[0].x.length, patching.head_count);
    assert.match(await page.locator("#patching figcaption").innerText(), /necessary/);
    await page.locator("#patching").screenshot({ path: join(screenshots, "heads.png") });
    if (ablation.curves.length > 1) {
      await choose(page, "ablation", "Zero");
      assert.match(await page.locator("#ablation figcaption").innerText(), /Zero ablation/);
    }
    // Keyboards reach what mice do.
    await page.locator("#patching input:checked").first().focus();
    await page.keyboard.press("ArrowLeft");
    assert.notEqual((await traces(page, "patching"))[0].x.length, 0);
    assert.deepEqual(complaints, []);
    await context.close();
  },

  async "offers nothing that leaves the page"(browser) {
    const { context, page, complaints } = await openPage(browser, render("buttons", results), WIDE);
    for (const view of VIEWS) {
      await page.locator(`#${view} .plot`).first().hover();
      const buttons = await page
        .locator(`#${view} .modebar-btn`)
        .evaluateAll((nodes) => nodes.map((node) => node.dataset.title));
      assert.ok(buttons.includes("Download plot"), `${view}: ${buttons}`);
      assert.deepEqual(buttons.filter((title) => /share|cloud|upload|send|edit in/i.test(title)), []);
      assert.equal(await page.evaluate((id) => document.querySelector(`#${id} .plot`)._context.plotlyServerURL, view), "");
    }
    assert.deepEqual(complaints, []);
    await context.close();
  },

  async "tells which components an edge of the circuit joins"(browser) {
    const { context, page } = await openPage(browser, render("edges", results), WIDE);
    await page.locator("#circuit .plot").scrollIntoViewIfNeeded();
    // The point of an edge that lies farthest from every other mark.
    const place = await page.evaluate(() => {
      const plot = document.querySelector("#circuit .plot");
      const { xaxis, yaxis } = plot._fullLayout;
      const box = plot.getBoundingClientRect();
      const marks = plot.data.flatMap(({ x, y }, trace) =>
        [...x].map((_, i) => ({
          trace,
          x: box.left + xaxis._offset + xaxis.l2p(x[i]),
          y: box.top + yaxis._offset + yaxis.l2p(y[i]),
        })),
      );
      const distance = (mark) =>
        Math.min(
          ...marks
            .filter(({ trace }) => trace !== mark.trace)
            .map((other) => Math.hypot(other.x - mark.x, other.y - mark.y)),
        );
      const edges = marks.filter(({ trace }) => plot.data[trace].mode === "lines");
      return edges.reduce((best, mark) => (distance(mark) > distance(best) ? mark : best));
    });
    await page.mouse.move(place.x, place.y);
    const text = page.locator("#circuit .hoverlayer .hovertext");
    await text.waitFor();
    const told = (await text.allTextContents()).join(" ");
    assert.match(told, /\S+ → \S+, read as (query|key|value|MLP|logits).* \[.*\].*p [=<] 0\.\d+/s);
    await page.locator("#circuit").screenshot({ path: join(screenshots, "edge.png") });
    await context.close();
  },

  async "lists the circuit's nodes and edges with what they were measured to do"(browser) {
    const { context, page, complaints } = await openPage(browser, render("circuit", results), WIDE);
    await page.locator("#circuit summary").click();
    const tables = page.locator("#circuit details table");
    assert.equal(await tables.count(), 2);
    const [nodes, edges] = await tables.evaluateAll((all) =>
      all.map((table) => [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent))),
    );
    assert.equal(nodes.length, Math.min(200, circuit.nodes.length));
    assert.equal(edges.length, Math.min(200, circuit.edges.length));
    const [first] = circuit.edges;
    const shown = edges.find(([name]) => name === `${first.sender} → ${first.receiver}`);
    assert.ok(shown.some((cell) => cell.startsWith(`${first.noising.mean.toFixed(3)} [`)), `${shown}`);
    for (const { name, role, backs_up } of circuit.nodes) {
      const row = nodes.find(([node]) => node === name);
      assert.ok(row, `${name} is not listed`);
      assert.equal(`CIRCUIT_ROLE_${row[1].split(":")[0].toUpperCase()}`, role);
      for (const backed of backs_up ?? []) assert.ok(row[1].includes(backed), row[1]);
    }
    assert.deepEqual(complaints, []);
    await page.locator("#circuit").screenshot({ path: join(screenshots, "circuit-numbers.png") });
    await context.close();
  },

  async "tells roles and kinds of edges apart"(browser) {
    const folder = join(scratch, "roles");
    mkdirSync(folder);
    const node = (name, role, place, more) => ({
      name,
      role: `CIRCUIT_ROLE_${role}`,
      ...place,
      noising: { mean: 0.1, lower: 0.05, upper: 0.15 },
      ...more,
    });
    const edge = (sender, receiver, mean, conditional_on = []) => ({
      sender,
      receiver,
      noising: { mean, lower: mean, upper: mean },
      conditional_on,
    });
    writeFileSync(
      join(folder, "05_circuit_results.json"),
      JSON.stringify({
        nodes: [
          node("L1.H0", "MEMBER", { layer: 1, head: 0 }),
          node("L1.N7", "MEMBER", { layer: 1, neuron: 7 }),
          node("L2.H1", "BACKUP", { layer: 2, head: 1 }, { backs_up: ["L1.H0"], conditional: { mean: 0.3 } }),
          node("L2.H2", "DECOY", { layer: 2, head: 2 }, { direct_attribution: 0.2 }),
        ],
        edges: [
          edge("embed", "L1.k0", 0.2),
          edge("L1.mlp", "final", -0.3),
          edge("L2.H1", "final", 0.25, ["L1.H0"]),
        ],
        edge_curve: { points: [{ share: 0.5, count: 3, faithfulness: { mean: 0.5, lower: 0.4, upper: 0.6 } }] },
      }),
    );
    const { context, page, complaints } = await openPage(browser, render("roles", folder), WIDE);
    const drawn = await page.evaluate(() => {
      const plot = document.querySelector("#circuit .plot");
      const lines = plot.data.filter(({ mode, customdata }) => mode === "lines" && customdata);
      const marks = plot.data.filter(({ mode }) => mode === "markers+text");
      return {
        lines: lines.map(({ line, customdata }) => ({ dash: line.dash, color: line.color, text: customdata[0] })),
        marks: Object.fromEntries(
          marks.flatMap(({ text, marker }) => [...text].map((label) => [label, `${marker.symbol} ${marker.color}`])),
        ),
        rings: plot.layout.shapes.length,
        legend: [...plot.querySelectorAll(".legendtext")].map(({ textContent }) => textContent),
      };
    });
    assert.equal(drawn.rings, 1);
    assert.deepEqual(
      Object.keys(drawn.marks).sort(),
      ["H0", "H1", "H2", "KV0", "MLP", "N7", "prompt", "refusal"],
    );
    assert.equal(new Set(["H0", "H1", "H2", "N7", "KV0", "MLP"].map((label) => drawn.marks[label])).size, 6);
    const [against, conditional, key] = drawn.lines; // the largest first
    assert.equal(new Set([against, conditional, key].map(({ color }) => color.replace(/, [\d.]+\)/, ""))).size, 3);
    assert.deepEqual([against.dash, conditional.dash, key.dash], ["solid", "dash", "solid"]);
    assert.match(conditional.text, /only with L1\.H0 ablated/);
    assert.match(key.text, /read as key/);
    for (const entry of ["backup (dashed)", "decoy (hollow)", "works against it", "only with others ablated"])
      assert.ok(drawn.legend.includes(entry), `${entry} is not in ${drawn.legend}`);
    assert.equal(await page.locator("#minimality").isVisible(), false);
    assert.deepEqual(complaints, []);
    await context.close();
  },

  async "follows the system into the dark, also while open"(browser) {
    const { context, page, complaints } = await openPage(browser, render("dark", results), {
      ...WIDE,
      colorScheme: "dark",
    });
    await page.screenshot({ path: join(screenshots, "dark.png"), fullPage: true });
    const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const bar = () =>
      page.evaluate(() => getComputedStyle(document.querySelector("#layers .barlayer .point path")).fill);
    const before = [await background(), await bar()];
    await page.emulateMedia({ colorScheme: "light" });
    await page.waitForFunction(
      (old) => getComputedStyle(document.querySelector("#layers .barlayer .point path")).fill !== old,
      before[1],
    );
    assert.notEqual(await background(), before[0]);
    assert.deepEqual(complaints, []);
    await context.close();
  },

  async "fits a phone without scrolling sideways"(browser) {
    const { context, page, complaints } = await openPage(browser, render("narrow", results), {
      viewport: { width: 390, height: 844 },
      isMobile: true,
      hasTouch: true,
    });
    assert.ok(
      await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth),
      "the page is wider than the screen",
    );
    for (const view of VIEWS) assert.ok((await marks(page, view)).plots > 0, view);
    // In the circuit a label lies upon no other and upon no node but, at most, its own.
    const boxes = (selector) =>
      page.locator(`#circuit .scatterlayer ${selector}`).evaluateAll((nodes) =>
        nodes.map((node) => {
          const { left, right, top, bottom } = node.getBoundingClientRect();
          return { name: node.textContent, left, right, top, bottom };
        }),
      );
    const [labels, nodes] = [await boxes(".textpoint"), await boxes(".point")];
    assert.ok(labels.length >= 3 && nodes.length === labels.length, "no labels");
    const apart = (a, b) =>
      a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
    for (const [index, label] of labels.entries()) {
      assert.ok(label.left >= 0 && label.right <= 390, `${label.name} is cut off`);
      const others = [...labels, ...nodes].filter((_, i) => i % labels.length !== index);
      const touched = others.findIndex((other) => !apart(label, other));
      assert.equal(touched, -1, `${label.name} lies upon something`);
    }
    assert.deepEqual(complaints, []);
    await page.locator("#circuit").screenshot({ path: join(screenshots, "narrow-circuit.png") });
    await page.screenshot({ path: join(screenshots, "narrow.png"), fullPage: true });
    await context.close();
  },

  async "shows another server's answers only where they were compared"(browser) {
    const without = await openPage(browser, render("study", results), WIDE);
    assert.equal(await without.page.locator("#compare").isVisible(), false);
    await without.context.close();

    const folder = join(scratch, "compared");
    mkdirSync(folder);
    const spread = { mean: { mean: 0.0125, lower: 0.01, upper: 0.015 }, median: 0.001, maximum: 0.5 };
    writeFileSync(
      join(folder, "04_compare_results.json"),
      JSON.stringify({
        provenance: { model: { name: "whole", quantization: "QUANTIZATION_NONE", device: "DEVICE_CPU" } },
        other_model: { name: "small", quantization: "QUANTIZATION_NF4", device: "DEVICE_CPU" },
        position_count: 12,
        counted_position_count: 9,
        kl_divergence: spread,
        top_token_agreement: { success_count: 8, total_count: 9, rate: 0.889, lower: 0.56, upper: 0.98 },
        layers: [{ layer: 0, median: 0.001 }, { layer: 1, median: 0.0321, maximum: 0.1 }],
        prompts: [{ prompt_id: "p01/harmful", prompt: "never in the page" }],
      }),
    );
    const { context, page, complaints } = await openPage(browser, render("compared", folder), WIDE);
    const text = await page.locator("#compare").innerText();
    for (const shown of ["whole, quantization none", "small, quantization NF4", "9 of 12", "0.0125", "8 of 9", "0.0321"]) {
      assert.ok(text.includes(shown), `${shown} is not in: ${text}`);
    }
    assert.ok(!(await page.content()).includes("never in the page"));
    assert.deepEqual(complaints, []);
    await context.close();
  },

  async "says which command makes what is missing"(browser) {
    const folder = join(scratch, "partial");
    mkdirSync(folder);
    copyFileSync(join(results, FILES[0]), join(folder, FILES[0]));
    const { context, page, complaints } = await openPage(browser, render("partial", folder), WIDE);
    for (const [view, command] of [
      ["patching", "abstract patching"],
      ["layers", "abstract patching"],
      ["circuit", "abstract circuit"],
      ["faithfulness", "abstract circuit"],
      ["ablation", "abstract ablation"],
      ["ranking", "abstract patching"],
    ]) {
      assert.equal(await page.locator(`#${view} .missing code`).innerText(), command);
    }
    assert.ok((await marks(page, "categories")).plots > 0);
    assert.deepEqual(complaints, []);
    await page.screenshot({ path: join(screenshots, "partial.png"), fullPage: true });
    await context.close();

    const nothing = join(scratch, "nothing");
    mkdirSync(nothing);
    const empty = await openPage(browser, render("nothing", nothing), WIDE);
    assert.equal(await empty.page.locator(".view .missing").count(), VIEWS.length);
    assert.deepEqual(empty.complaints, []);
    await empty.context.close();
  },
};

assert.ok(existsSync(program), `${program} does not exist`);
const browser = await launch(chromiumPath);
let failures = 0;
try {
  for (const [name, test] of Object.entries(tests)) {
    try {
      await test(browser);
      console.log(`ok: ${name}`);
    } catch (error) {
      ++failures;
      console.error(`FAILED: ${name}\n${error.stack}`);
    }
  }
} finally {
  await browser.close();
  rmSync(scratch, { recursive: true, force: true });
}
console.log(`screenshots in ${screenshots}`);
process.exitCode = failures === 0 ? 0 : 1;
