// View 1: effects of patching, layers by positions or by heads.

const DIRECTIONS = {
  PATCH_DIRECTION_DENOISING: "harmful → harmless",
  PATCH_DIRECTION_NOISING: "harmless → harmful",
};
const DIRECTION_MEANING = {
  PATCH_DIRECTION_DENOISING:
    "Harmful activations put into the harmless run: orange places are sufficient to bring refusal about.",
  PATCH_DIRECTION_NOISING:
    "Harmless activations put into the harmful run: orange places are necessary, refusal goes without them.",
};
const HEATMAP_KINDS = {
  COMPONENT_KIND_RESID_PRE: "Residual stream",
  COMPONENT_KIND_ATTN_OUT: "Attention",
  COMPONENT_KIND_MLP_OUT: "MLP",
  COMPONENT_KIND_HEAD: "Heads",
};

const heatmapChoice = { kind: null, direction: null };

// Columns of the heatmap: {key, label}, in the order shown.
function heatmapColumns(patching, kind) {
  if (kind === "COMPONENT_KIND_HEAD") {
    return Array.from({ length: patching.head_count }, (_, head) => ({ key: head, label: `${head}` }));
  }
  return patching.positions
    .map((position, index) => ({ key: position, label: tokenText(patching.position_labels[index] ?? "") }))
    .sort((a, b) => a.key - b.key)
    .map(({ key, label }) => ({ key, label: label.startsWith("position ") ? "" : label }));
}

// Few columns are named, many only numbered; hovering tells the rest.
function columnTicks(columns, byHead) {
  const step = Math.ceil(columns.length / (NARROW.matches ? 8 : 20));
  const indices = columns.map((_, index) => index).filter((index) => index % step === 0);
  const named = !byHead && columns.length <= 10;
  const text = ({ key, label }) => {
    const number = String(key).replace("-", MINUS);
    return named && label
      ? [...wrapped(label, 14).map(plotText), number].join(NARROW.matches ? " " : "<br>")
      : number;
  };
  return {
    tickmode: "array",
    tickvals: indices,
    ticktext: indices.map((index) => text(columns[index])),
    tickangle: named && NARROW.matches ? -90 : 0,
    tickfont: { size: named ? 11 : 12 },
  };
}

function columnKey(component) {
  return component.kind === "COMPONENT_KIND_HEAD" ? component.head : component.position;
}

function heatmapCells(patching, columns, effects) {
  const columnOf = new Map(columns.map(({ key }, index) => [key, index]));
  const empty = () => Array.from({ length: patching.layer_count }, () => Array(columns.length).fill(null));
  const cells = { means: empty(), texts: empty() };
  for (const { component, effect } of effects) {
    const column = columnOf.get(columnKey(component));
    if (column === undefined || !effect) continue;
    cells.means[component.layer][column] = Number(effect.mean);
    cells.texts[component.layer][column] =
      `<b>${plotText(component.name)}</b>` +
      (columns[column].label && component.position !== undefined
        ? ` ${plotText(columns[column].label)}`
        : "") +
      `<br>effect ${estimateText(effect)}` +
      `<br>${effect.sample_count} pairs`;
  }
  return cells;
}

// One scale for both directions of a kind, so that switching compares.
function heatmapLimit(effects) {
  const largest = Math.max(
    0,
    ...effects.map(({ effect }) => Math.abs(Number(effect?.mean))).filter(Number.isFinite),
  );
  return Math.max(0.05, largest);
}

function drawHeatmap(patching) {
  const { kind, direction } = heatmapChoice;
  const ofKind = patching.effects.filter(({ component }) => component.kind === kind);
  const shown = ofKind.filter((effect) => effect.direction === direction);
  const columns = heatmapColumns(patching, kind);
  const cells = heatmapCells(patching, columns, shown);
  const limit = heatmapLimit(ofKind);
  const byHead = kind === "COMPONENT_KIND_HEAD";
  const fitsText = columns.length <= (NARROW.matches ? 6 : 14) && patching.layer_count <= 40;

  const trace = {
    type: "heatmap",
    x: columns.map((_, index) => index),
    y: cells.means.map((_, layer) => layer),
    z: cells.means,
    customdata: cells.texts,
    hovertemplate: "%{customdata}<extra></extra>",
    texttemplate: fitsText ? "%{z:.2f}" : "",
    textfont: { size: 11 },
    colorscale: divergingScale(),
    zmin: -limit,
    zmax: limit,
    xgap: 1,
    ygap: 1,
    colorbar: {
      title: { text: "effect", side: "top", font: { size: 13, color: color("muted") } },
      thickness: 12,
      outlinewidth: 0,
      tickformat: ".2~f",
      len: 1,
      x: 1.01,
    },
  };
  const layout = frame({
    height: Math.min(760, Math.max(320, patching.layer_count * (fitsText ? 36 : 18) + 130)),
    margin: { l: 52, r: 8, t: 36, b: 56 },
    xaxis: axis(byHead ? "head" : "position of the prompt, from its end", {
      showgrid: false,
      zeroline: false,
      ticks: "",
      ...columnTicks(columns, byHead),
    }),
    yaxis: axis("layer", {
      dtick: Math.ceil(patching.layer_count / 16),
      tick0: 0,
      showgrid: false,
      zeroline: false,
      ticks: "",
    }),
  });
  setCaption("patching", DIRECTION_MEANING[direction]);
  setNumbers(
    "patching",
    [
      { title: "Component", cell: ({ component }) => component.name },
      { title: "Effect, 95 % interval", right: true, cell: ({ effect }) => estimateText(effect) },
      { title: "Pairs", right: true, cell: ({ effect }) => `${effect?.sample_count ?? 0}` },
    ],
    [...shown].sort((a, b) => Number(b.effect?.mean) - Number(a.effect?.mean)).slice(0, 40),
  );
  return drawPlot(
    "patching",
    [trace],
    layout,
    `Heatmap of patching effects, ${HEATMAP_KINDS[kind]}, ${DIRECTIONS[direction]}; the table below lists the strongest.`,
  );
}

function patchingView({ study }, firstTime) {
  const patching = study.patching;
  if (!patching) return showMissing("patching", "patching results", "abstract patching");
  if (firstTime) {
    const present = (key, value) =>
      patching.effects.some(
        (effect) => (key === "kind" ? effect.component.kind : effect.direction) === value,
      );
    const kinds = Object.entries(HEATMAP_KINDS).filter(([kind]) => present("kind", kind));
    const directions = Object.entries(DIRECTIONS).filter(([direction]) => present("direction", direction));
    if (kinds.length === 0 || directions.length === 0) {
      return showMissing(
        "patching",
        "effects of residual stream, attention, MLP or heads",
        "abstract patching",
      );
    }
    heatmapChoice.kind = kinds[0][0];
    heatmapChoice.direction = directions[0][0];
    const choose = (key) => (value) => {
      heatmapChoice[key] = value;
      drawHeatmap(patching);
    };
    addSegments("patching", "Activation", kinds, heatmapChoice.kind, choose("kind"));
    addSegments("patching", "Patched from → into", directions, heatmapChoice.direction, choose("direction"));
  }
  if (heatmapChoice.kind === null) return undefined;
  return drawHeatmap(patching);
}
