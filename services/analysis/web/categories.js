// View 6: refusals of the unmodified model by harm category.

function rateTrace(rows, key, name, colorName, symbol, offset) {
  const rate = (row) => row[key] ?? { rate: 0, lower: 0, upper: 1, total_count: 0 };
  return {
    type: "scatter",
    mode: "markers",
    name,
    x: rows.map((row) => 100 * rate(row).rate),
    y: rows.map((_, index) => index + offset),
    error_x: {
      type: "data",
      symmetric: false,
      thickness: 2,
      width: 5,
      color: color(colorName),
      array: rows.map((row) => 100 * (rate(row).upper - rate(row).rate)),
      arrayminus: rows.map((row) => 100 * (rate(row).rate - rate(row).lower)),
    },
    marker: { color: color(colorName), size: 11, symbol, line: { color: color("paper"), width: 1.5 } },
    customdata: rows.map((row) => `${plotText(row.name)}, ${name}<br>refused ${rateText(rate(row))}`),
    hovertemplate: "%{customdata}<extra></extra>",
    cliponaxis: false,
  };
}

function categoriesView({ study }) {
  const baseline = study.baseline;
  if (!baseline) return showMissing("categories", "baseline results", "abstract baseline");
  const categories = baseline.categories
    .map((row) => ({ ...row, name: categoryName(row.category) }))
    .sort((a, b) => a.name.localeCompare(b.name));
  const rows = [{ name: "All", harmful: baseline.harmful, harmless: baseline.harmless }, ...categories];
  // Plotly counts upward; the list reads downward.
  rows.reverse();
  const label = (row, index) =>
    `${index === rows.length - 1 ? "<b>All</b>" : plotText(row.name)} <span style="font-size:11px">n = ${row.harmful?.total_count ?? 0}</span>`;
  const layout = frame({
    height: 120 + 46 * rows.length,
    xaxis: axis("refused (%), 95 % interval", {
      range: [-3, 103],
      tickvals: [0, 25, 50, 75, 100],
      zeroline: false,
    }),
    yaxis: axis("", {
      tickmode: "array",
      tickvals: rows.map((_, index) => index),
      ticktext: rows.map(label),
      showgrid: false,
      zeroline: false,
      range: [-0.6, rows.length - 0.4],
      ticks: "",
    }),
    shapes: [
      {
        type: "line",
        xref: "paper",
        x0: 0,
        x1: 1,
        y0: rows.length - 1.5,
        y1: rows.length - 1.5,
        line: { color: color("line"), width: 1 },
      },
    ],
    margin: { l: 24, r: 20, t: 16, b: 48 },
  });
  setCaption(
    "categories",
    `Judged by refusal phrases anywhere in the response. Only at its start: harmful ${rateText(baseline.harmful_at_start)}; harmless ${rateText(baseline.harmless_at_start)}.`,
  );
  setNumbers(
    "categories",
    [
      { title: "Category", cell: ({ name }) => name },
      { title: "Harmful refused", right: true, cell: ({ harmful }) => rateText(harmful) },
      { title: "Harmless refused", right: true, cell: ({ harmless }) => rateText(harmless) },
    ],
    rows.slice().reverse(),
  );
  return drawPlot(
    "categories",
    [
      rateTrace(rows, "harmful", "harmful requests", "harmful", "circle", 0.14),
      rateTrace(rows, "harmless", "harmless requests", "harmless", "diamond", -0.14),
    ],
    layout,
    `Refusal rates of ${categories.length} categories, harmful and harmless, with intervals.`,
  );
}
