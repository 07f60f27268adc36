// View 5: refusal rates while more and more components are ablated.

const ablationChoice = { curve: 0 };

// Counts double from one point to the next, so their logarithm is shown; 0 fits.
function countPlace(count) {
  return Math.log2(count + 1);
}

function band(rows, rateOf, colorName, group) {
  const upper = rows.map((row) => 100 * rateOf(row).upper);
  const lower = rows.map((row) => 100 * rateOf(row).lower);
  const places = rows.map((row) => countPlace(row.component_count));
  return {
    type: "scatter",
    mode: "lines",
    x: [...places, ...places.slice().reverse()],
    y: [...upper, ...lower.slice().reverse()],
    fill: "toself",
    fillcolor: faded(colorName, 0.13),
    line: { width: 0 },
    hoverinfo: "skip",
    showlegend: false,
    legendgroup: group,
  };
}

function whiskers(rows, rateOf, colorName) {
  return {
    type: "data",
    symmetric: false,
    thickness: 1.5,
    width: 4,
    color: faded(colorName, 0.75),
    array: rows.map((row) => 100 * (rateOf(row).upper - rateOf(row).rate)),
    arrayminus: rows.map((row) => 100 * (rateOf(row).rate - rateOf(row).lower)),
  };
}

// Harmful curves have bands; harmless ones whiskers, since four bands would
// cover each other. `shift` sets whiskers side by side.
function curveTraces(rows, rateOf, { name, colorName, dash, symbol, shift = 0, banded }, describe) {
  if (rows.length === 0) return [];
  return [
    ...(banded ? [band(rows, rateOf, colorName, name)] : []),
    {
      type: "scatter",
      mode: "lines+markers",
      name,
      legendgroup: name,
      x: rows.map((row) => countPlace(row.component_count) + shift),
      y: rows.map((row) => 100 * rateOf(row).rate),
      ...(banded ? {} : { error_y: whiskers(rows, rateOf, colorName) }),
      line: { color: color(colorName), width: 2.5, dash },
      marker: { color: color(colorName), size: 8, symbol, line: { color: color("paper"), width: 1 } },
      customdata: rows.map(describe),
      hovertemplate: `<b>${name}</b><br>%{customdata}<extra></extra>`,
    },
  ];
}

function drawTrace(curve) {
  const x = [];
  const y = [];
  for (const point of curve.random) {
    for (const rate of point.draw_rates) {
      x.push(countPlace(point.component_count));
      y.push(100 * rate);
    }
  }
  return {
    type: "scatter",
    mode: "markers",
    name: "single random draws",
    x,
    y,
    hoverinfo: "skip",
    showlegend: false,
    legendgroup: "harmful, random K",
    marker: { color: color("random"), size: 5, opacity: 0.55 },
  };
}

function topText(rate) {
  return (point) =>
    `top ${point.component_count} ablated (${percent(point.parameter_share, 2)} of parameters)` +
    `<br>refused ${rateText(rate(point))}`;
}

function randomText(rate) {
  return (point) =>
    (point.draw_count === 0
      ? "nothing ablated"
      : `${point.component_count} random components, ${point.draw_count} draws`) +
    `<br>refused ${rateText(rate(point))}`;
}

// The random curve starts where the top curve does: at the unablated model.
function randomRows(curve) {
  const start = curve.top.find(({ component_count }) => component_count === 0);
  const hasOwn = curve.random.some(({ component_count }) => component_count === 0);
  return start && !hasOwn && curve.random.length > 0
    ? [{ ...start, draw_count: 0, draw_rates: [] }, ...curve.random]
    : curve.random;
}

// Where harmful refusals must fall below for the claim to hold.
function thresholdShape(curve, criterion) {
  const start = curve.top.find(({ component_count }) => component_count === 0);
  if (!start || !criterion) return {};
  const y = 100 * start.harmful.rate - criterion.threshold_points;
  if (y <= 0) return {};
  return {
    shapes: [
      {
        type: "line",
        xref: "paper",
        x0: 0,
        x1: 1,
        y0: y,
        y1: y,
        line: { color: color("muted"), width: 1, dash: "dot" },
      },
    ],
    annotations: [
      {
        xref: "paper",
        x: 1,
        xanchor: "right",
        y,
        yanchor: "bottom",
        showarrow: false,
        text: `${criterion.threshold_points} points below baseline`,
        font: { size: 11, color: color("muted") },
      },
    ],
  };
}

function drawAblation(ablation) {
  const curve = ablation.curves[ablationChoice.curve];
  const harmful = (point) => point.harmful;
  const harmless = (point) => point.harmless;
  const random = randomRows(curve);
  const traces = [
    drawTrace(curve),
    ...curveTraces(
      random,
      harmless,
      { name: "harmless, random K", colorName: "random", dash: "dot", symbol: "diamond-open", shift: 0.03 },
      randomText(harmless),
    ),
    ...curveTraces(
      random,
      harmful,
      { name: "harmful, random K", colorName: "random", dash: "dash", symbol: "circle-open", banded: true },
      randomText(harmful),
    ),
    ...curveTraces(
      curve.top,
      harmless,
      { name: "harmless, top K", colorName: "harmless", dash: "solid", symbol: "diamond", shift: -0.03 },
      topText(harmless),
    ),
    ...curveTraces(
      curve.top,
      harmful,
      { name: "harmful, top K", colorName: "harmful", dash: "solid", symbol: "circle", banded: true },
      topText(harmful),
    ),
  ];
  const counts = [
    ...new Set([...curve.top, ...curve.random].map(({ component_count }) => component_count)),
  ].sort((a, b) => a - b);
  const layout = frame({
    height: 440,
    hovermode: "closest",
    xaxis: axis("components ablated, K (logarithmic)", {
      tickmode: "array",
      tickvals: counts.map(countPlace),
      ticktext: counts.map(String),
      zeroline: false,
    }),
    yaxis: axis("refusals (%)", { range: [-4, 104], tickvals: [0, 25, 50, 75, 100], zeroline: false }),
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "reversed" },
    ...thresholdShape(curve, ablation.criterion),
  });
  setCaption(
    "ablation",
    curve.method === "ABLATION_METHOD_MEAN"
      ? "Mean ablation: an ablated component puts out its average over the harmless prompts."
      : curve.method === "ABLATION_METHOD_ZERO"
        ? "Zero ablation: an ablated component puts out nothing, which the model never saw in training."
        : "Resample ablation: an ablated component puts out what it did on a random harmless prompt.",
  );
  setNumbers(
    "ablation",
    [
      { title: "Components", cell: ({ name }) => name },
      { title: "Harmful refused", right: true, cell: ({ row }) => rateText(row.harmful) },
      { title: "Harmless refused", right: true, cell: ({ row }) => rateText(row.harmless) },
      {
        title: "Parameters",
        right: true,
        cell: ({ row }) => (row.parameter_share === undefined ? "" : percent(row.parameter_share, 3)),
      },
    ],
    [
      ...curve.top.map((row) => ({ name: `top ${row.component_count}`, row })),
      ...curve.random.map((row) => ({
        name: `random ${row.component_count} (${row.draw_count} draws)`,
        row,
      })),
    ],
  );
  return drawPlot(
    "ablation",
    traces,
    layout,
    "Line chart of refusal rates against the number of ablated components, top-ranked against random.",
  );
}

function ablationView({ study }, firstTime) {
  const ablation = study.ablation;
  if (!ablation || ablation.curves.length === 0)
    return showMissing("ablation", "ablation results", "abstract ablation");
  if (firstTime && ablation.curves.length > 1) {
    const options = ablation.curves.map((curve, index) => [
      `${index}`,
      capitalized(METHODS[curve.method] ?? "?"),
    ]);
    addSegments("ablation", "Ablation by", options, "0", (value) => {
      ablationChoice.curve = Number(value);
      drawAblation(ablation);
    });
  }
  return drawAblation(ablation);
}
