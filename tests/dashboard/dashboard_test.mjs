// Opens dashboards in headless Chromium: are the five views drawn, from the data,
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
const FILES = ["01_baseline_results.json", "02_patching_results.json", "03_ablation_results.json"];
const VIEWS = ["patching", "layers", "circuit", "ablation", "categories"];
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
const [baseline, patching, ablation] = FILES.map(read);

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
  async "draws the five views from the data, without errors or requests"(browser) {
    const { context, page, complaints } = await openPage(browser, render("study", results), WIDE);
    const drawn = Object.fromEntries(
      await Promise.all(VIEWS.map(async (view) => [view, await marks(page, view)])),
    );
    for (const view of VIEWS) assert.ok(drawn[view].plots > 0, `${view} has no plot`);
    assert.ok(drawn.patching.heatmaps >= 1, "no heatmap");
    assert.ok(drawn.layers.bars >= patching.layer_count, "fewer bars than layers");
    assert.ok(drawn.circuit.points >= 3 && drawn.circuit.lines >= 2, "no circuit");
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
      await page.locator(`#${view} .plot`).hover();
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
    assert.match((await text.allTextContents()).join(" "), /\S+ → \S+.*weight 0\.\d\d|\S+ → \S+.*weight 1\.00/s);
    await page.locator("#circuit").screenshot({ path: join(screenshots, "edge.png") });
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
      ["circuit", "abstract patching"],
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
