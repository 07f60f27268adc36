// View 3: the measured circuit, drawn along the forward pass.

const ROLES = {
  CIRCUIT_ROLE_MEMBER: "member",
  CIRCUIT_ROLE_BACKUP: "backup",
  CIRCUIT_ROLE_DECOY: "decoy",
};
const CIRCUIT_ROWS = 200; // of each table

// {layer, part, index} of "L2.q3"; undefined for "embed" and "final".
function circuitPlace(name) {
  const match = /^L(\d+)\.(q|k|v|H|N|mlp_in|mlp)(\d*)$/.exec(name);
  return match ? { layer: Number(match[1]), part: match[2], index: Number(match[3]) } : undefined;
}

// What of the drawing an edge's end is: a query belongs to its head, keys and values to the
// key and value head, what an MLP reads to the MLP.
function drawnEnd(name) {
  const place = circuitPlace(name);
  if (!place) return name;
  const { layer, part, index } = place;
  const drawn = { q: `H${index}`, k: `KV${index}`, v: `KV${index}`, H: `H${index}` };
  return `L${layer}.${drawn[part] ?? "mlp"}`;
}

// How the receiver reads what it is sent.
function readAs(receiver) {
  const place = circuitPlace(receiver);
  return { q: "query", k: "key", v: "value", mlp_in: "MLP" }[place?.part] ?? "logits";
}

// Whether a head reads this key and value head; null where the results do not tell how many share one.
function readsKeys(head, keyHead, { head_count, key_value_head_count }) {
  if (!head_count || !key_value_head_count) return null;
  return Math.floor(head / (head_count / key_value_head_count)) === keyHead;
}

function sizeOf({ noising, denoising, conditional, direct_attribution, role }) {
  const sizes = [noising, denoising, conditional].map((estimate) => Math.abs(Number(estimate?.mean ?? 0)));
  if (role === "CIRCUIT_ROLE_DECOY") sizes.push(Math.abs(Number(direct_attribution ?? 0)));
  return Math.max(...sizes);
}

// Below zero: it works against refusal.
function leadingMean({ noising, denoising, conditional }) {
  const means = [noising, denoising, conditional].map((estimate) => Number(estimate?.mean ?? 0));
  return means.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
}

function pText(value) {
  const p = Number(value);
  return p < 0.001 ? "p < 0.001" : `p = ${p.toFixed(3)}`;
}

function effectLines({ denoising, noising, p_value, attribution }) {
  return [
    ...(denoising ? [`harmful → harmless ${estimateText(denoising, 3)}`] : []),
    ...(noising ? [`harmless → harmful ${estimateText(noising, 3)}`] : []),
    `${pText(p_value)}; attribution estimated ${signed(attribution, 3)}`,
  ];
}

// What the role adds to the effects.
function roleText({ role, backs_up, conditional, direct_attribution }) {
  if (role === "CIRCUIT_ROLE_BACKUP")
    return `${estimateText(conditional, 3)} with ${backs_up.join(" ")} ablated`;
  if (role === "CIRCUIT_ROLE_DECOY") return `writes ${signed(direct_attribution, 3)} into the logits`;
  return "";
}

function conditionText({ conditional_on }) {
  return conditional_on.length > 0 ? `only with ${conditional_on.join(" ")} ablated` : "";
}

function nodeText(node) {
  const kind = circuitPlace(node.name).part === "H" ? "attention head" : "MLP neuron";
  const role = roleText(node);
  return [
    `<b>${plotText(node.name)}</b> ${kind}, ${ROLES[node.role] ?? "?"}`,
    ...(role ? [plotText(role)] : []),
    ...effectLines(node),
  ].join("<br>");
}

function edgeName({ sender, receiver }) {
  return `${sender} → ${receiver}`;
}

function edgeText(edge) {
  const condition = conditionText(edge);
  return [
    `<b>${plotText(edgeName(edge))}</b>, read as ${readAs(edge.receiver)}`,
    ...(condition ? [plotText(condition)] : []),
    ...effectLines(edge),
  ].join("<br>");
}

// Everything that is drawn as a mark, by id: the nodes, and what edges end at besides.
function circuitItems({ nodes, edges }, results) {
  const items = new Map();
  const add = (id, item) => items.has(id) || items.set(id, { id, ...item });
  add("embed", { kind: "end", label: "prompt", text: "the prompt’s embedding" });
  for (const node of nodes) {
    const { layer, part, index } = circuitPlace(node.name);
    add(node.name, {
      kind: part === "H" ? "head" : "neuron",
      layer,
      index,
      label: `${part}${index}`,
      node,
      text: nodeText(node),
    });
  }
  const neuronsOf = (layer) =>
    nodes.filter(({ name }) => name.startsWith(`L${layer}.N`)).map(({ name }) => name);
  const addMlp = (layer) => {
    const neurons = neuronsOf(layer);
    add(`L${layer}.mlp`, {
      kind: "mlp",
      layer,
      label: "MLP",
      text:
        `<b>L${layer}.mlp</b> the whole MLP, which edges are measured on` +
        (neurons.length > 0 ? `<br>of its neurons, measured alone: ${neurons.join(" ")}` : ""),
    });
  };
  for (const { layer, kind } of [...items.values()]) if (kind === "neuron") addMlp(layer);
  for (const name of edges.flatMap(({ sender, receiver }) => [sender, receiver])) {
    const place = circuitPlace(name);
    if (!place) continue;
    const { layer, part, index } = place;
    if (part === "mlp" || part === "mlp_in") addMlp(layer);
    if (part !== "k" && part !== "v") continue;
    const readers = [...items.values()].filter(
      (item) => item.kind === "head" && item.layer === layer && readsKeys(item.index, index, results),
    );
    add(`L${layer}.KV${index}`, {
      kind: "keys",
      layer,
      index,
      label: `KV${index}`,
      readers: readers.map(({ id }) => id),
      text:
        `<b>L${layer}</b> key and value head ${index}` +
        (readers.length > 0 ? `<br>read by ${readers.map(({ id }) => id).join(" ")}` : ""),
    });
  }
  add("final", { kind: "end", label: "refusal", text: "the logits of refusal" });
  return items;
}

const CIRCUIT_STAGES = { keys: 0, head: 1, mlp: 2, neuron: 3 };

// In the order of the forward pass.
function itemsInOrder(items) {
  const stageOf = ({ id, kind, layer }) =>
    id === "embed" ? -1 : id === "final" ? Infinity : 4 * layer + CIRCUIT_STAGES[kind];
  return [...items.values()]
    .map((item) => ({ item, stage: stageOf(item) }))
    .sort((a, b) => (a.stage === b.stage ? (a.item.index ?? 0) - (b.item.index ?? 0) : a.stage - b.stage))
    .map(({ item }) => item);
}

// Where key and value heads stand across: beside the heads that read them, none upon another.
function keyRows(keys, rowOf) {
  let last = 0;
  for (const item of keys) {
    const rows = item.readers.map((id) => rowOf.get(id));
    const middle = rows.length > 0 ? rows.reduce((a, b) => a + b) / rows.length : 1;
    last = Math.max(middle, last + 0.8);
    rowOf.set(item.id, last);
  }
}

// {along, across} of every mark. A column for each layer that has any: attention above the middle, with key
// and value heads before the heads, the MLP with its neurons below. On narrow screens each mark has a row
// of its own, and so room for its label.
function circuitPlaces(items) {
  const ordered = itemsInOrder(items);
  const layers = [...new Set(ordered.map(({ layer }) => layer).filter((layer) => layer !== undefined))];
  const places = new Map();
  if (NARROW.matches) {
    const across = { end: 0, keys: 0.45, head: 0.85, mlp: -0.85, neuron: -0.6 };
    ordered.forEach(({ id, kind }, row) => places.set(id, { along: row, across: across[kind] }));
    return { places, layers, ordered };
  }
  // Every other head stands aside, so that lines of those above do not run through it.
  const ahead = ({ id, kind }, rowOf) =>
    kind === "head" ? (rowOf.get(id) % 2 === 0 ? 0.14 : 0) : kind === "keys" ? -0.36 : 0.44;
  places.set("embed", { along: 0, across: 0 });
  places.set("final", { along: layers.length + 1, across: 0 });
  layers.forEach((layer, column) => {
    const ofKind = (kind) => ordered.filter((item) => item.layer === layer && item.kind === kind);
    const rowOf = new Map();
    ofKind("head").forEach(({ id }, row) => rowOf.set(id, row + 1));
    keyRows(ofKind("keys"), rowOf);
    for (const { id } of ofKind("mlp")) rowOf.set(id, -1);
    ofKind("neuron").forEach(({ id }, row) => rowOf.set(id, -2 - row));
    for (const [id, across] of rowOf) {
      places.set(id, { along: 1 + column + ahead(items.get(id), rowOf), across });
    }
  });
  return { places, layers, ordered };
}

// From left to right; on narrow screens from top to bottom.
function toPoint({ along, across }) {
  return NARROW.matches ? [across, -along] : [along, across];
}

// A curve that runs near the middle, as the residual stream does.
function curveBetween(a, b, level) {
  const xs = [];
  const ys = [];
  for (let step = 0; step <= 24; ++step) {
    const t = step / 24;
    const own = 3 * t * (1 - t);
    const [x, y] = toPoint({
      along: a.along + (b.along - a.along) * t,
      across: a.across * (1 - t) ** 3 + b.across * t ** 3 + own * level,
    });
    xs.push(x);
    ys.push(y);
  }
  return { x: xs, y: ys };
}

const EDGE_CLASSES = {
  forward: { name: "carries refusal", colorName: "random", dash: "solid" },
  against: { name: "works against it", colorName: "harmless", dash: "solid" },
  conditional: { name: "only with others ablated", colorName: "accent", dash: "dash" },
};

function edgeClass(edge) {
  if (edge.conditional_on.length > 0) return "conditional";
  return leadingMean(edge) < 0 ? "against" : "forward";
}

function edgeTrace(edge, index, places, best) {
  const share = best > 0 ? sizeOf(edge) / best : 0;
  const { colorName, dash } = EDGE_CLASSES[edgeClass(edge)];
  const [from, to] = [edge.sender, edge.receiver].map((end) => places.get(drawnEnd(end)));
  // Each at a level of its own, the longer the farther: the golden ratio spreads any number of them.
  const spread = (NARROW.matches ? 0.5 : 1) * Math.min(1, (to.along - from.along) / 3);
  const curve = curveBetween(from, to, (((index * 0.618) % 1) - 0.5) * spread);
  return {
    type: "scatter",
    mode: "lines",
    ...curve,
    showlegend: false,
    line: { color: faded(colorName, 0.35 + 0.5 * share), width: 1 + 7 * share, dash },
    // Of every point: one text for the whole line is not found by the template.
    customdata: curve.x.map(() => edgeText(edge)),
    hovertemplate: "%{customdata}<extra></extra>",
  };
}

// What belongs together without having been measured: a neuron to its MLP, heads to the keys and values
// they read, a backup to what it backs up.
function tieTraces(items, places) {
  const tie = (from, to, colorName, dash) => ({
    type: "scatter",
    mode: "lines",
    ...curveBetween(places.get(from), places.get(to), (places.get(from).across + places.get(to).across) / 2),
    showlegend: false,
    hoverinfo: "skip",
    line: { color: faded(colorName, 0.7), width: 1, dash },
  });
  return [...items.values()].flatMap(({ id, kind, layer, readers = [], node }) => [
    ...(kind === "neuron" ? [tie(`L${layer}.mlp`, id, "muted", "dot")] : []),
    ...readers.map((reader) => tie(id, reader, "muted", "dot")),
    ...(node?.backs_up ?? []).filter((name) => items.has(name)).map((name) => tie(name, id, "accent", "dot")),
  ]);
}

// Where a mark's label stands: on narrow screens toward the middle, whose edge would cut it off.
function labelSide({ kind }, { across }) {
  if (NARROW.matches) return across > 0 ? "middle left" : "middle right";
  return (
    { keys: "middle left", head: "top center", mlp: "middle right", neuron: "middle right" }[kind] ??
    "top center"
  );
}

// Of one kind and role.
function markTrace(items, places, marker) {
  const points = items.map(({ id }) => toPoint(places.get(id)));
  const label = ({ label, layer }) => (NARROW.matches && layer !== undefined ? `L${layer}.${label}` : label);
  return {
    type: "scatter",
    mode: "markers+text",
    x: points.map(([x]) => x),
    y: points.map(([, y]) => y),
    text: items.map((item) => plotText(label(item))),
    textposition: items.map((item) => labelSide(item, places.get(item.id))),
    textfont: { size: 12, color: color("ink") },
    cliponaxis: false,
    customdata: items.map(({ text }) => text),
    hovertemplate: "%{customdata}<extra></extra>",
    marker: { opacity: 1, ...marker },
    showlegend: false,
  };
}

function markSize({ node }, best) {
  return 11 + 17 * Math.sqrt(best > 0 ? sizeOf(node) / best : 0);
}

// Members are filled, backups faint within a dashed ring, decoys hollow.
function nodeMarker(kind, role, items, best) {
  const colorName = kind === "head" ? "heads" : "neurons";
  const hollow = role !== "CIRCUIT_ROLE_MEMBER";
  return {
    symbol: kind === "head" ? "circle" : "square",
    size: items.map((item) => markSize(item, best)),
    color: role === "CIRCUIT_ROLE_BACKUP" ? tinted(colorName) : hollow ? color("paper") : color(colorName),
    line: {
      color: role === "CIRCUIT_ROLE_DECOY" ? color(colorName) : color("paper"),
      width: 2,
    },
  };
}

function ringShapes(items, places, best) {
  return items
    .filter(({ node }) => node?.role === "CIRCUIT_ROLE_BACKUP")
    .map((item) => {
      const [x, y] = toPoint(places.get(item.id));
      const radius = markSize(item, best) / 2 + 2;
      return {
        type: item.kind === "head" ? "circle" : "rect",
        xsizemode: "pixel",
        ysizemode: "pixel",
        xanchor: x,
        yanchor: y,
        x0: -radius,
        x1: radius,
        y0: -radius,
        y1: radius,
        line: { color: color(item.kind === "head" ? "heads" : "neurons"), width: 1.5, dash: "3px,2px" },
      };
    });
}

// Entries of the legend that belong to no single mark.
function legendTraces(items, edges) {
  const has = (test) => [...items.values()].some(test);
  const entry = (name, more) => ({ type: "scatter", x: [null], y: [null], name, hoverinfo: "skip", ...more });
  const mark = (name, marker) => entry(name, { mode: "markers", marker: { size: 12, ...marker } });
  const ink = color("muted");
  const kinds = [
    ["head", "attention head", { symbol: "circle", color: color("heads") }],
    ["neuron", "MLP neuron", { symbol: "square", color: color("neurons") }],
    ["mlp", "whole MLP", { symbol: "square-open", color: ink, size: 13, line: { width: 1.5 } }],
    ["keys", "key and value head", { symbol: "triangle-right", color: ink, size: 10 }],
  ].filter(([kind]) => has((item) => item.kind === kind));
  const roles = [
    ["CIRCUIT_ROLE_BACKUP", "backup (dashed)", { symbol: "circle-open-dot", color: ink }],
    ["CIRCUIT_ROLE_DECOY", "decoy (hollow)", { symbol: "circle-open", color: ink, line: { width: 2 } }],
  ].filter(([role]) => has(({ node }) => node?.role === role));
  const classes = Object.entries(EDGE_CLASSES).filter(([name]) =>
    edges.some((edge) => edgeClass(edge) === name),
  );
  return [
    ...[...kinds, ...roles].map(([, name, marker]) => mark(name, marker)),
    ...classes.map(([, { name, colorName, dash }]) =>
      entry(name, { mode: "lines", line: { color: color(colorName), width: 3, dash } }),
    ),
  ];
}

// Of the nodes, edges apart: the neighbouring kinds and roles that are there.
function markTraces(ordered, places, best) {
  const groups = new Map();
  for (const item of ordered) {
    const key = `${item.kind}/${item.node?.role ?? ""}`;
    groups.set(key, [...(groups.get(key) ?? []), item]);
  }
  const plain = {
    end: { symbol: "diamond", size: 16, color: color("ink"), line: { color: color("paper"), width: 2 } },
    mlp: { symbol: "square", size: 17, color: color("paper"), line: { color: color("muted"), width: 1.5 } },
    keys: {
      symbol: "triangle-right",
      size: 10,
      color: color("muted"),
      line: { color: color("paper"), width: 1 },
    },
  };
  return [...groups.values()].map((items) => {
    const [{ kind, node }] = items;
    return markTrace(items, places, plain[kind] ?? nodeMarker(kind, node.role, items, best));
  });
}

function circuitAxes({ places, layers, ordered }) {
  const all = [...places.values()];
  const lowest = Math.min(-1, ...all.map(({ across }) => across)) - 0.7;
  const highest = Math.max(1, ...all.map(({ across }) => across)) + 0.8;
  const firstOf = (layer) => places.get(ordered.find((item) => item.layer === layer).id).along;
  const along = axis("forward pass, by layer", {
    tickmode: "array",
    showgrid: false,
    zeroline: false,
    ticks: "",
    tickvals: layers.map((layer, column) => (NARROW.matches ? -firstOf(layer) : column + 1)),
    ticktext: layers.map((layer) => `L${layer}`),
    range: NARROW.matches ? [0.4 - ordered.length, 0.6] : [-0.5, layers.length + 1.5],
  });
  const across = { visible: false, range: NARROW.matches ? [-1.1, 1.1] : [lowest, highest] };
  return NARROW.matches
    ? { xaxis: across, yaxis: along, height: 190 + 34 * ordered.length }
    : { xaxis: along, yaxis: across, height: Math.max(380, 130 + 50 * (highest - lowest)) };
}

function countText(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

function circuitCaption({ circuit: results }, drawn) {
  const ofRole = (role) => results.nodes.filter((node) => node.role === role).length;
  const roles = Object.entries(ROLES)
    .map(([role, name]) => [ofRole(role), name])
    .filter(([count]) => count > 0)
    .map(([count, name]) => countText(count, name));
  return (
    `Measured: ${[...roles, countText(results.edges.length, "edge")].join(", ")}. Drawn: the ` +
    `${drawn.nodes.length} largest nodes and ${countText(drawn.edges.length, "edge")} between them, each head’s own ` +
    `largest and the largest of all; the numbers have the rest. ` +
    `On ${countText(results.pair_ids.length, "pair")}, effects below ${results.least_effect} count as none.`
  );
}

const CIRCUIT_COLUMNS = [
  {
    title: "Harmful → harmless",
    right: true,
    class: "nowrap",
    cell: ({ denoising }) => estimateText(denoising, 3),
  },
  {
    title: "Harmless → harmful",
    right: true,
    class: "nowrap",
    cell: ({ noising }) => estimateText(noising, 3),
  },
  { title: "p", right: true, class: "nowrap", cell: ({ p_value }) => pText(p_value).replace(/^p (= )?/, "") },
  { title: "Attribution", right: true, cell: ({ attribution }) => signed(attribution, 3) },
];

function setCircuitNumbers({ nodes, edges }) {
  const shown = (rows) => rows.slice(0, CIRCUIT_ROWS);
  const caption = (rows, what) =>
    rows.length > CIRCUIT_ROWS ? `The ${CIRCUIT_ROWS} largest ${what}` : capitalized(what);
  setNumberTables("circuit", [
    {
      caption: caption(nodes, "nodes"),
      columns: [
        { title: "Node", cell: ({ name }) => name },
        {
          title: "Role",
          class: "note",
          cell: (node) => [ROLES[node.role] ?? "?", roleText(node)].filter(Boolean).join(": "),
        },
        ...CIRCUIT_COLUMNS,
      ],
      rows: shown(nodes),
    },
    {
      caption: caption(edges, "edges"),
      columns: [
        { title: "Edge", cell: edgeName },
        {
          title: "Read as",
          class: "note",
          cell: (edge) => [readAs(edge.receiver), conditionText(edge)].filter(Boolean).join(", "),
        },
        ...CIRCUIT_COLUMNS,
      ],
      rows: shown(edges),
    },
  ]);
}

function circuitView({ study, circuit }) {
  const results = study.circuit;
  if (!results) return showMissing("circuit", "circuit results", "abstract circuit");
  if (circuit.nodes.length + circuit.edges.length === 0)
    return showMissing("circuit", "nodes with an effect", "abstract circuit");
  const items = circuitItems(circuit, results);
  const placed = circuitPlaces(items);
  const { places, ordered } = placed;
  const bestNode = Math.max(0, ...circuit.nodes.map(sizeOf));
  const bestEdge = Math.max(0, ...circuit.edges.map(sizeOf));
  const { xaxis, yaxis, height } = circuitAxes(placed);
  const layout = frame({
    height,
    hovermode: "closest",
    xaxis,
    yaxis,
    shapes: ringShapes(ordered, places, bestNode),
    margin: { l: NARROW.matches ? 40 : 16, r: NARROW.matches ? 8 : 16, t: 24, b: 48 },
  });
  setCaption("circuit", circuitCaption(study, circuit));
  setCircuitNumbers(results);
  return drawPlot(
    "circuit",
    [
      ...circuit.edges.map((edge, index) => edgeTrace(edge, index, places, bestEdge)),
      ...tieTraces(items, places),
      ...markTraces(ordered, places, bestNode),
      ...legendTraces(items, circuit.edges),
    ],
    layout,
    `Diagram of ${circuit.nodes.length} heads and neurons between prompt and refusal, with ` +
      `${circuit.edges.length} measured edges; the table below lists them.`,
  );
}
