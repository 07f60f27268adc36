// Masthead: the study's answer in a sentence and a few numbers.

function tile(title, value, detail) {
  return element(
    "div",
    {},
    element("dt", {}, title),
    element("dd", {}, element("div", { class: "value" }, value), element("div", { class: "detail" }, detail)),
  );
}

function rateTile(title, rate) {
  if (!rate) return tile(title, "–", "not measured; abstract baseline does it");
  return tile(
    title,
    percent(rate.rate),
    `${rate.success_count} of ${rate.total_count}, ${intervalText(rate)}`,
  );
}

function criterionTile(title, criterion, key, detail) {
  if (!criterion) return tile(title, "–", "not measured; abstract ablation does it");
  return tile(title, points(-criterion[key]), detail);
}

// Whether as many random components were ablated as the criterion's.
function hasControl(ablation) {
  const count = ablation.criterion.component_count;
  return ablation.curves.some(({ random }) =>
    random.some(({ component_count }) => component_count === count),
  );
}

function verdictOf({ baseline, ablation }) {
  const criterion = ablation?.criterion;
  if (!criterion) {
    return [
      element("span", { class: "badge open" }, "open"),
      baseline
        ? " The baseline is measured; no ablation has tested the ranking yet."
        : " This study has not been run to its end yet.",
    ];
  }
  const badge = criterion.met
    ? element("span", { class: "badge good" }, "criterion met")
    : element("span", { class: "badge bad" }, "criterion not met");
  const change = (value, what) =>
    value >= 0 ? `lowers ${what} by ${points(value)}` : `raises ${what} by ${points(-value)}`;
  const count = criterion.component_count;
  const control = hasControl(ablation)
    ? `ablating ${count} random ones ${change(criterion.random_drop_points, "them")}`
    : "no random ones were ablated beside them";
  const held = ablation.held_out_criterion
    ? ` On held-out prompts the top components’ drop is ${points(ablation.held_out_criterion.top_drop_points)}.`
    : "";
  return [
    badge,
    ` Ablating the top ${count} components together ${change(criterion.top_drop_points, "harmful refusals")}; ` +
      `${control}. The claim needs a drop above ${points(criterion.threshold_points)} ` +
      `that random components do not reach.${held}`,
  ];
}

// What was studied, in a line; the table of provenance has the rest.
function identityOf({ run, study }) {
  const provenance = studyParts(study)[0]?.provenance;
  if (!provenance) return [];
  const model = provenance.model ?? {};
  const hash = model.model_hash ? `model ${model.model_hash.slice(0, 12)}` : "";
  return [
    element("span", { title: model.model_hash ?? "" }, hash),
    element("span", {}, DEVICES[model.device] ?? "unknown device"),
    element("span", {}, `quantization ${QUANTIZATIONS[model.quantization] ?? "unknown"}`),
    element("span", {}, `seed ${provenance.seed}`),
    element("span", {}, `${provenance.pair_count} prompt pairs`),
    element("span", {}, `run ${run.description?.run_id || "unnamed"}`),
  ].filter((span) => span.textContent !== "");
}

// Parts that do not belong together must not be read together.
function warningsOf(parts) {
  const different = (what, valueOf) => {
    const values = [...new Set(parts.map(({ provenance }) => valueOf(provenance)).filter(Boolean))];
    return values.length > 1
      ? [`The parts of this study were made with different ${what}: ${values.join(", ")}.`]
      : [];
  };
  return [
    ...different("models", (provenance) =>
      [provenance?.model?.name, provenance?.model?.model_hash?.slice(0, 12)].filter(Boolean).join(" "),
    ),
    ...different("quantizations", (provenance) => QUANTIZATIONS[provenance?.model?.quantization]),
  ];
}

function studyParts(study) {
  return Object.entries(study)
    .filter(([, part]) => part)
    .map(([name, part]) => ({
      name: name[0].toUpperCase() + name.slice(1),
      provenance: part.provenance ?? {},
    }));
}

function showHeader({ version, run, study }) {
  const name = run.description?.model_name || "an unnamed model";
  const title = `What makes ${name} refuse`;
  document.title = title;
  find("#title").textContent = title;
  find("#version").textContent = version;
  find("#identity").replaceChildren(...identityOf({ run, study }));
  find("#verdict").replaceChildren(...verdictOf(study));
  find("#warnings").replaceChildren(...warningsOf(studyParts(study)).map((text) => element("li", {}, text)));
  const criterion = study.ablation?.criterion;
  const tiles = [
    rateTile("Harmful requests refused", study.baseline?.harmful),
    rateTile("Harmless requests refused", study.baseline?.harmless),
    criterionTile(
      criterion ? `Top ${criterion.component_count} ablated` : "Top K ablated",
      criterion,
      "top_drop_points",
      "harmful refusals, against baseline",
    ),
    criterionTile(
      criterion ? `Random ${criterion.component_count} ablated` : "Random K ablated",
      criterion && hasControl(study.ablation) ? criterion : undefined,
      "random_drop_points",
      "harmful refusals, against baseline",
    ),
  ];
  const held = study.ablation?.held_out_criterion;
  if (held) {
    tiles.push(
      criterionTile(
        `Top ${held.component_count}, held-out prompts`,
        held,
        "top_drop_points",
        `${study.ablation.held_out_baseline?.harmful?.total_count ?? "?"} harmful requests, ${held.met ? "criterion met" : "criterion not met"}`,
      ),
    );
  }
  find("#tiles").replaceChildren(...tiles);
}
