// Ranking, sample responses and provenance.

function scoreBar(component, best) {
  const share = Math.max(0, component.score) / best;
  const name = component.component.kind === "COMPONENT_KIND_HEAD" ? "heads" : "neurons";
  return styled(element("span", { class: "bar", "aria-hidden": "true" }), {
    width: `${(100 * share).toFixed(1)}%`,
    background: `var(--${name})`,
  });
}

function showRanking({ study }) {
  const place = find("#ranking .scroll");
  if (!study.patching) return place.replaceChildren(missingNotice("patching results", "abstract patching"));
  const { ranking } = study.patching;
  const best = Math.max(1e-12, ...ranking.map(({ score }) => score));
  place.replaceChildren(
    makeTable(
      [
        { title: "Component", cell: ({ component }) => component.name },
        { title: "Rank", right: true, cell: ({ rank }) => `${rank}` },
        { title: "Kind", class: "nowrap", cell: ({ component }) => KINDS[component.kind] },
        { title: "Score", right: true, cell: ({ score }) => signed(score, 3) },
        {
          title: "Harmful → harmless",
          right: true,
          class: "nowrap",
          cell: ({ denoising }) => estimateText(denoising),
        },
        {
          title: "Harmless → harmful",
          right: true,
          class: "nowrap",
          cell: ({ noising }) => estimateText(noising),
        },
        { title: "", cell: (row) => scoreBar(row, best) },
      ],
      ranking,
    ),
  );
}

function judgedText(response) {
  if (!response) return element("span", { class: "dim" }, "not sampled");
  const [name, text] = response.refused ? ["refused", "refused"] : ["answered", "answered"];
  return element(
    "span",
    {},
    element("span", { class: `judged ${name}` }, text),
    tokenText(response.response),
  );
}

function ablatedSamples(ablation) {
  const curve = ablation?.curves?.[0];
  const point = curve?.top.find(
    ({ component_count }) => component_count === ablation.criterion?.component_count,
  );
  const samples = new Map(
    (point?.samples ?? []).map((sample) => [`${sample.pair_id}/${sample.prompt_class}`, sample]),
  );
  return { samples, count: point?.component_count, method: METHODS[curve?.method] };
}

function showResponses({ study }) {
  const place = find("#responses .scroll");
  if (!study.baseline) return place.replaceChildren(missingNotice("baseline results", "abstract baseline"));
  const { samples, count, method } = ablatedSamples(study.ablation);
  const sampleOf = (response) => samples.get(`${response.pair_id}/${response.prompt_class}`);
  // Those that both runs answered tell most; harmful first.
  const rows = [...study.baseline.responses].sort(
    (a, b) => (sampleOf(b) ? 1 : 0) - (sampleOf(a) ? 1 : 0) || a.prompt_class.localeCompare(b.prompt_class),
  );
  const shown = rows.slice(0, 60);
  // The page holds the first thousand only.
  const { harmful, harmless } = study.baseline;
  const all = Math.max(rows.length, (harmful?.total_count ?? 0) + (harmless?.total_count ?? 0));
  place.replaceChildren(
    makeTable(
      [
        { title: "Request", cell: ({ prompt }) => prompt },
        {
          title: "Class",
          class: "short nowrap",
          cell: ({ prompt_class, category }) =>
            `${prompt_class === "PROMPT_CLASS_HARMFUL" ? "harmful" : "harmless"} · ${categoryName(category).toLowerCase()}`,
        },
        { title: "Clean model", cell: judgedText },
        {
          title: count ? `Top ${count} ablated (${method})` : "Ablated",
          cell: (row) => judgedText(sampleOf(row)),
        },
      ],
      shown,
      all > shown.length ? `${shown.length} of ${all} responses.` : "",
    ),
  );
}

function showProvenance({ run, study }) {
  const place = find("#provenance .scroll");
  const parts = studyParts(study);
  if (parts.length === 0) return place.replaceChildren(missingNotice("results", "abstract baseline"));
  const row = (title, valueOf) => ({
    title,
    values: parts.map(({ provenance }) => valueOf(provenance, provenance.model ?? {}) || "–"),
  });
  const rows = [
    row("Model", (_, model) => model.name),
    row(
      "Model hash",
      (_, model) =>
        model.model_hash && element("code", { title: model.model_hash }, model.model_hash.slice(0, 16)),
    ),
    row("Quantization", (_, model) => QUANTIZATIONS[model.quantization]),
    row("Device", (_, model) => DEVICES[model.device]),
    row("Model service", (_, model) => model.server_version),
    row("Client", (provenance) => provenance.client_version),
    row("Seed", (provenance) => provenance.seed),
    row(
      "Prompt pairs",
      (provenance) => `${provenance.pair_count ?? "?"} of ${provenance.prompts_path || "?"}`,
    ),
    row(
      "Made",
      (provenance) =>
        provenance.create_time && provenance.create_time.slice(0, 16).replace("T", " ") + " UTC",
    ),
    row("Took", (provenance) => provenance.elapsed && durationText(provenance.elapsed)),
    row("Command", (provenance) =>
      provenance.arguments?.length ? element("code", {}, provenance.arguments.join(" ")) : "",
    ),
  ];
  place.replaceChildren(
    makeTable(
      [
        { title: run.description?.run_id ? `Run ${run.description.run_id}` : "", cell: ({ title }) => title },
        ...parts.map(({ name }, index) => ({ title: name, cell: ({ values }) => values[index] })),
      ],
      rows,
    ),
  );
}
