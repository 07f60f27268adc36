// Another server's answers against this one's, where the study has that.

function showComparison({ study }) {
  const compare = study.compare;
  for (const part of document.querySelectorAll('#compare, a[href="#compare"]')) part.hidden = !compare;
  if (!compare) return;
  const modelText = (model) =>
    [
      model?.name || "unnamed",
      `quantization ${QUANTIZATIONS[model?.quantization] ?? "unknown"}`,
      `on ${DEVICES[model?.device] ?? "an unknown device"}`,
    ].join(", ");
  // Differences of many sizes: digits that tell, whatever the size.
  const small = (value) => Number(value ?? 0).toPrecision(3);
  const spread = (summary) =>
    summary
      ? [
          `mean ${small(summary.mean?.mean)} [${small(summary.mean?.lower)}, ${small(summary.mean?.upper)}]`,
          `median ${small(summary.median)}`,
          `99th percentile ${small(summary.percentile_99)}`,
          `largest ${small(summary.maximum)}`,
        ].join(", ")
      : "not measured";
  const { perplexity, continuations } = compare;
  const last = compare.layers[compare.layers.length - 1];
  const rows = [
    ["Reference", modelText(compare.provenance?.model)],
    ["Other", modelText(compare.other_model)],
    [
      "Positions",
      `${compare.counted_position_count} of ${compare.position_count}: a context that prompts share counts once`,
    ],
    ["KL divergence of the next token (nats)", spread(compare.kl_divergence)],
    ["Same likeliest token", rateText(compare.top_token_agreement)],
    ["Change of the likeliest token’s log-probability", spread(compare.top_log_probability_difference)],
    ["Perplexity of the prompts, reference", estimateText(perplexity?.reference)],
    ["Perplexity of the prompts, other", estimateText(perplexity?.other)],
    [
      "Relative error of the residual stream after the last layer",
      last ? `median ${small(last.median)}, largest ${small(last.maximum)}` : "not measured",
    ],
    ["Same greedy continuation", rateText(continuations?.identical)],
  ];
  find("#compare .scroll").replaceChildren(
    makeTable(
      [
        { title: "Measure", cell: ([name]) => name },
        { title: "Value", cell: ([, value]) => value },
      ],
      rows,
    ),
  );
}
