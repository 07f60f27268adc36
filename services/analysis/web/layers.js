// View 2: importance of layers, heads and neuron groups stacked.

function layersView({ study }) {
  if (!study.patching) return showMissing("layers", "patching results", "abstract patching");
  const { layers } = study.patching;
  const bars = (key, name, colorName) => ({
    type: "bar",
    name,
    x: layers.map(({ layer }) => layer),
    y: layers.map((layer) => layer[key]),
    marker: { color: color(colorName), line: { color: color("paper"), width: 1 } },
    hovertemplate: `layer %{x}<br>${name}: %{y:.3f}<extra></extra>`,
  });
  const layout = frame({
    height: 360,
    barmode: "stack",
    bargap: 0.25,
    xaxis: axis("layer", {
      dtick: Math.ceil(layers.length / 16),
      tick0: 0,
      showgrid: false,
      zeroline: false,
    }),
    yaxis: axis("sum of positive effects", { rangemode: "tozero" }),
  });
  const best = layers.reduce((a, b) => (b.importance > a.importance ? b : a), layers[0]);
  const total = layers.reduce((sum, layer) => sum + layer.importance, 0);
  setCaption(
    "layers",
    total > 0
      ? `Layer ${best.layer} leads with ${percent(best.importance / total)} of the sum over all layers.`
      : "No head or neuron group had a positive effect.",
  );
  setNumbers(
    "layers",
    [
      { title: "Layer", cell: ({ layer }) => `${layer}` },
      { title: "Heads", right: true, cell: (layer) => signed(layer.head_importance, 3) },
      { title: "Neuron groups", right: true, cell: (layer) => signed(layer.neuron_importance, 3) },
      { title: "Sum", right: true, cell: (layer) => signed(layer.importance, 3) },
    ],
    layers,
  );
  return drawPlot(
    "layers",
    [
      bars("head_importance", "attention heads", "heads"),
      bars("neuron_importance", "MLP neuron groups", "neurons"),
    ],
    layout,
    `Bar chart of the importance of ${layers.length} layers; layer ${best.layer} leads.`,
  );
}
