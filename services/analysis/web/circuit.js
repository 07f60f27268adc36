// View 3: the circuit, drawn along the forward pass.

// Columns of the drawing, in order: nodes that share a stage stand side by side.
function circuitColumns(nodes) {
  const columns = [];
  let stageOfLast = null;
  for (const node of nodes) {
    const component = node.component?.component;
    const stage = component ? `${component.layer}/${component.kind}` : node.id;
    if (stage !== stageOfLast) columns.push([]);
    columns[columns.length - 1].push(node);
    stageOfLast = stage;
  }
  return columns;
}

// {along, across} of every node: along the forward pass, across it. Columns with
// few nodes alternate about the middle, so that lines do not run through nodes. On
// narrow screens each node has a row of its own, and so room for its label.
function circuitPlaces(columns) {
  const widest = Math.max(...columns.map((column) => column.length));
  const swing = Math.max(1, (widest - 1) / 2);
  const offsets = [0.75, -0.75, 0.15, -0.4, 0.45, -0.1];
  const places = new Map();
  columns.forEach((column, stage) => {
    const isEnd = stage === 0 || stage === columns.length - 1;
    const middle = isEnd || column.length > 2 ? 0 : offsets[(stage - 1) % offsets.length] * swing;
    column.forEach((node, index) => {
      places.set(node.id, {
        along: NARROW.matches ? places.size : stage,
        across: middle + (column.length - 1) / 2 - index,
      });
    });
  });
  return places;
}

// From left to right; on narrow screens from top to bottom.
function toPoint({ along, across }) {
  return NARROW.matches ? [across, -along] : [along, across];
}

// "L2.H7 → refusal"
function edgeName({ from, to }, labels) {
  return `${labels.get(from)} → ${labels.get(to)}`;
}

function edgeTrace(edge, places, labels) {
  const a = places.get(edge.from);
  const b = places.get(edge.to);
  const xs = [];
  const ys = [];
  // A smooth step: leaves and arrives along the forward pass.
  for (let step = 0; step <= 24; ++step) {
    const t = step / 24;
    const smooth = t * t * (3 - 2 * t);
    const [x, y] = toPoint({
      along: a.along + (b.along - a.along) * t,
      across: a.across + (b.across - a.across) * smooth,
    });
    xs.push(x);
    ys.push(y);
  }
  return {
    type: "scatter",
    mode: "lines",
    x: xs,
    y: ys,
    showlegend: false,
    line: { color: faded("random", 0.25 + 0.5 * edge.weight), width: 1 + 5 * edge.weight },
    // Of every point: one text for the whole line is not found by the template.
    customdata: xs.map(() => `${plotText(edgeName(edge, labels))}<br>weight ${signed(edge.weight)}`),
    hovertemplate: "%{customdata}<extra></extra>",
  };
}

function nodeText({ component, label }) {
  if (!component) return plotText(label);
  return (
    `<b>${plotText(label)}</b> ${KINDS[component.component.kind]}, rank ${component.rank}<br>` +
    `score ${signed(component.score)}<br>harmful → harmless ${estimateText(component.denoising)}<br>` +
    `harmless → harmful ${estimateText(component.noising)}`
  );
}

// Toward the middle on narrow screens, whose edge would cut it off.
function labelSide({ across }) {
  if (!NARROW.matches) return "top center";
  return across > 0 ? "middle left" : "middle right";
}

function nodeTrace(name, nodes, places, colorName, symbol, best) {
  const points = nodes.map((node) => toPoint(places.get(node.id)));
  return {
    type: "scatter",
    mode: "markers+text",
    name,
    x: points.map(([x]) => x),
    y: points.map(([, y]) => y),
    text: nodes.map(({ label }) => plotText(label)),
    textposition: nodes.map(({ id }) => labelSide(places.get(id))),
    textfont: { size: 12, color: color("ink") },
    cliponaxis: false,
    customdata: nodes.map(nodeText),
    hovertemplate: "%{customdata}<extra></extra>",
    marker: {
      symbol,
      color: color(colorName),
      opacity: 1,
      line: { color: color("paper"), width: 2 },
      size: nodes.map(({ component }) => (component ? 12 + 22 * Math.sqrt(component.score / best) : 18)),
    },
    showlegend: nodes.length > 0 && nodes[0].component !== undefined,
  };
}

// Where a stage's name stands along the forward pass.
function middleOf(column, places) {
  return column.reduce((sum, { id }) => sum + places.get(id).along, 0) / column.length;
}

function circuitView({ study, circuit }) {
  if (!study.patching) return showMissing("circuit", "patching results", "abstract patching");
  if (circuit.nodes.length === 0) {
    return showMissing("circuit", "components with a positive effect", "abstract patching");
  }
  const columns = circuitColumns(circuit.nodes);
  const places = circuitPlaces(columns);
  const labels = new Map(circuit.nodes.map(({ id, label }) => [id, label]));
  const ofKind = (kind) => circuit.nodes.filter(({ component }) => component?.component.kind === kind);
  const ends = circuit.nodes.filter(({ component }) => !component);
  const best = Math.max(...circuit.nodes.map(({ component }) => component?.score ?? 0));
  const heads = ofKind("COMPONENT_KIND_HEAD");
  const neurons = ofKind("COMPONENT_KIND_NEURON_GROUP");
  const traces = [
    ...circuit.edges.map((edge) => edgeTrace(edge, places, labels)),
    nodeTrace("ends", ends, places, "ink", "diamond", best),
    nodeTrace("attention heads", heads, places, "heads", "circle", best),
    nodeTrace("MLP neuron groups", neurons, places, "neurons", "square", best),
  ];
  const stageNames = columns.map(([node]) =>
    node.component
      ? `L${node.component.component.layer}<br>${node.component.component.kind === "COMPONENT_KIND_HEAD" ? "attn" : "MLP"}`
      : "",
  );
  const extent = Math.max(...[...places.values()].map(({ across }) => Math.abs(across))) + 0.6;
  const along = axis("forward pass, by layer", {
    tickmode: "array",
    showgrid: false,
    zeroline: false,
    ticks: "",
    tickvals: columns.map((column) => (NARROW.matches ? -1 : 1) * middleOf(column, places)),
    ticktext: stageNames,
    range: NARROW.matches ? [0.4 - circuit.nodes.length, 0.6] : [-0.6, columns.length - 0.4],
  });
  const across = { visible: false, range: [-extent, extent] };
  const layout = frame({
    height: NARROW.matches ? 90 + 44 * circuit.nodes.length : Math.max(380, 90 + 70 * extent),
    hovermode: "closest",
    xaxis: NARROW.matches ? across : along,
    yaxis: NARROW.matches ? along : across,
    margin: { l: NARROW.matches ? 48 : 24, r: 24, t: 24, b: 48 },
  });
  setCaption(
    "circuit",
    `${heads.length + neurons.length} components: ${heads.length} heads, ${neurons.length} neuron groups.`,
  );
  setNumbers(
    "circuit",
    [
      { title: "From", cell: ({ from }) => labels.get(from) },
      { title: "To", cell: ({ to }) => labels.get(to) },
      { title: "Weight", right: true, cell: ({ weight }) => signed(weight) },
    ],
    [...circuit.edges].sort((a, b) => b.weight - a.weight),
  );
  return drawPlot(
    "circuit",
    traces,
    layout,
    `Diagram of ${heads.length + neurons.length} components between prompt and refusal, with ${circuit.edges.length} possible paths.`,
  );
}
