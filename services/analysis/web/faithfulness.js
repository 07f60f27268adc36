// View 4: the circuit put to the test on prompts that nothing was chosen on.

const CIRCUIT_CURVES = [
  { key: "edge_curve", name: "edges", colorName: "harmful", dash: "solid", symbol: "circle" },
  { key: "node_curve", name: "heads and MLPs", colorName: "heads", dash: "dash", symbol: "diamond" },
  { key: "neuron_curve", name: "heads and neurons", colorName: "neurons", dash: "dot", symbol: "square" },
];
const MEMBERS_LEFT_OUT = 12; // drawn

function faithfulnessTraces({ points }, { name, colorName, dash, symbol }) {
  const shares = points.map(({ share }) => 100 * share);
  const of = (key) => points.map(({ faithfulness }) => faithfulness?.[key]);
  return [
    {
      type: "scatter",
      mode: "lines",
      x: [...shares, ...shares.slice().reverse()],
      y: [...of("upper"), ...of("lower").reverse()],
      fill: "toself",
      fillcolor: faded(colorName, 0.13),
      line: { width: 0 },
      hoverinfo: "skip",
      showlegend: false,
      legendgroup: name,
    },
    {
      type: "scatter",
      mode: "lines+markers",
      name,
      legendgroup: name,
      x: shares,
      y: of("mean"),
      line: { color: color(colorName), width: 2.5, dash },
      marker: { color: color(colorName), size: 7, symbol, line: { color: color("paper"), width: 1 } },
      customdata: points.map(
        ({ share, count, faithfulness }) =>
          `the best ${shareText(share)}: ${count}<br>do ${estimateText(faithfulness)} of what the model does`,
      ),
      hovertemplate: `<b>${name}</b><br>%{customdata}<extra></extra>`,
    },
  ];
}

// "0.1 %", "20 %"
function shareText(share) {
  return `${Number((100 * share).toPrecision(3))}\u00a0%`;
}

function faithfulnessLayout(curves) {
  const shares = [...new Set(curves.flatMap(({ points }) => points.map(({ share }) => share)))].sort(
    (a, b) => a - b,
  );
  // Every other one where they would lie upon each other.
  const ticks = shares.filter((_, index) => (shares.length - 1 - index) % (NARROW.matches ? 3 : 1) === 0);
  const line = (y) => ({
    type: "line",
    xref: "paper",
    x0: 0,
    x1: 1,
    y0: y,
    y1: y,
    line: { color: color("muted"), width: 1, dash: "dot" },
  });
  return frame({
    height: 380,
    hovermode: "closest",
    xaxis: axis(
      NARROW.matches ? "best share of all edges" : "best share of all the model's edges (logarithmic)",
      {
        type: "log",
        tickmode: "array",
        tickvals: ticks.map((share) => 100 * share),
        ticktext: ticks.map(shareText),
        zeroline: false,
      },
    ),
    yaxis: axis("faithfulness", { zeroline: false }),
    shapes: [line(0), line(1)],
  });
}

function testedOnText({ pair_ids, test_pair_ids }) {
  const both = test_pair_ids.filter((id) => pair_ids.includes(id)).length;
  if (both === 0) return countText(test_pair_ids.length, "other pair");
  return `${countText(test_pair_ids.length, "pair")}, ${both} of which the circuit was chosen on`;
}

function drawFaithfulness(results, curves) {
  const areas = curves.map(({ name, cpr, cmd }) => `${name} ${signed(cpr, 3)} and ${signed(cmd, 3)}`);
  setCaption(
    "faithfulness",
    `On ${testedOnText(results)}. MIB’s areas, CPR (1 is best) and CMD (0 is best): ` +
      `${areas.join("; ")}.`,
  );
  setNumbers(
    "faithfulness",
    [
      { title: "Circuit", cell: ({ name, share }) => `the best ${shareText(share)} of ${name}` },
      { title: "Count", right: true, cell: ({ count }) => `${count}` },
      {
        title: "Faithfulness",
        right: true,
        class: "nowrap",
        cell: ({ faithfulness }) => estimateText(faithfulness, 3),
      },
    ],
    curves.flatMap(({ name, points }) => points.map((point) => ({ name, ...point }))),
  );
  return drawPlot(
    "faithfulness",
    curves.flatMap((curve) => faithfulnessTraces(curve, curve)),
    faithfulnessLayout(curves),
    "Line chart of faithfulness against the share of the model's edges that is in the circuit.",
  );
}

// The circuit without each of its members.
function drawMinimality(minimality) {
  const place = find("#minimality");
  place.hidden = minimality.length === 0;
  if (minimality.length === 0) return undefined;
  const ordered = [...minimality].sort((a, b) => Number(b.drop?.mean ?? 0) - Number(a.drop?.mean ?? 0));
  const shown = ordered.slice(0, MEMBERS_LEFT_OUT).reverse();
  const of = (key) => shown.map(({ drop }) => Number(drop?.[key] ?? 0));
  const means = of("mean");
  const isHead = ({ name }) => circuitPlace(name)?.part === "H";
  const needed = minimality.filter(({ drop }) => Number(drop?.lower) > 0).length;
  setCaption(
    "minimality",
    `${needed} of ${minimality.length} are missed when left out: the interval of what the circuit loses is above 0.` +
      (minimality.length > shown.length ? ` Shown are the ${shown.length} missed most.` : ""),
  );
  setNumbers(
    "minimality",
    [
      { title: "Left out", cell: ({ name }) => name },
      { title: "Faithfulness lost", right: true, class: "nowrap", cell: ({ drop }) => estimateText(drop, 4) },
    ],
    ordered.slice(0, CIRCUIT_ROWS),
  );
  return drawPlot(
    "minimality",
    [
      {
        type: "scatter",
        mode: "markers",
        x: means,
        y: shown.map((_, row) => row),
        error_x: {
          type: "data",
          symmetric: false,
          thickness: 1.5,
          width: 4,
          color: color("muted"),
          array: of("upper").map((upper, i) => upper - means[i]),
          arrayminus: of("lower").map((lower, i) => means[i] - lower),
        },
        marker: {
          color: shown.map((row) => color(isHead(row) ? "heads" : "neurons")),
          symbol: shown.map((row) => (isHead(row) ? "circle" : "square")),
          size: 9,
          line: { color: color("paper"), width: 1 },
        },
        customdata: shown.map(({ name, drop }) => `without ${plotText(name)}: ${estimateText(drop, 4)} less`),
        hovertemplate: "%{customdata}<extra></extra>",
      },
    ],
    frame({
      height: 100 + 21 * shown.length,
      hovermode: "closest",
      xaxis: axis("faithfulness lost without it", { rangemode: "tozero" }),
      yaxis: axis("", {
        tickmode: "array",
        tickvals: shown.map((_, row) => row),
        ticktext: shown.map(({ name }) => plotText(name)),
        showgrid: false,
        zeroline: false,
        range: [-0.7, shown.length - 0.3],
        ticks: "",
      }),
      margin: { l: 24, r: 20, t: 8, b: 48 },
    }),
    `Dot chart of what the circuit loses without each of ${shown.length} members.`,
  );
}

function agreementText(agreement) {
  if (!agreement) return "not measured";
  const missed = agreement.missed_leaders;
  return (
    `Spearman ${signed(agreement.spearman)} over ${agreement.component_count}, of the ${agreement.leader_count} ` +
    `leaders missed ${missed.length === 0 ? "none" : missed.slice(0, 10).join(" ")}`
  );
}

function circuitFacts(results) {
  const { stability, specificity, random_specificity } = results;
  return [
    [
      "Members and backups alone do",
      results.faithfulness ? `${estimateText(results.faithfulness, 3)} of what the model does` : "none was found",
    ],
    ["Everything but them does", estimateText(results.complement_faithfulness, 3)],
    ["Their share of the parameters", percent(results.parameter_share, 3)],
    [
      "Harmless prompts, with them from another one, move by",
      specificity
        ? `${estimateText(specificity, 4)} nats` +
          (random_specificity ? `; with as many random ones by ${estimateText(random_specificity, 4)}` : "")
        : "not measured",
    ],
    [
      "Circuits of resampled pairs share",
      stability?.resample_count > 1
        ? `${signed(stability.mean_jaccard)} of their ${stability.edge_count} edges (Jaccard; 5th percentile ` +
          `${signed(stability.low_jaccard)}, ${stability.resample_count} resamples)`
        : "not measured",
    ],
    ["Attribution and exact patching agree on heads", agreementText(results.head_agreement)],
    ["… and on groups of neurons", agreementText(results.neuron_group_agreement)],
    [
      "Model runs",
      `${Number(results.run_count).toLocaleString("en-US")}; ${countText(results.round_count, "round")} of looking for backups`,
    ],
  ];
}

async function faithfulnessView({ study }) {
  const results = study.circuit;
  find("#minimality").hidden = true;
  if (!results) return showMissing("faithfulness", "circuit results", "abstract circuit");
  const curves = CIRCUIT_CURVES.map((curve) => ({ points: [], ...results[curve.key], ...curve })).filter(
    ({ points }) => points.length > 0,
  );
  if (curves.length === 0) return showMissing("faithfulness", "faithfulness curves", "abstract circuit");
  find("#faithfulness .facts").replaceChildren(
    ...circuitFacts(results).map(([title, value]) =>
      element("div", {}, element("dt", {}, title), element("dd", {}, value)),
    ),
  );
  await drawFaithfulness(results, curves);
  return drawMinimality(results.minimality);
}
