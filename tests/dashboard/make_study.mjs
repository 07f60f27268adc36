// Writes tests/testdata/results: a synthetic study of a model that does not
// exist, with the shape that real ones have. Run by hand when the results'
// messages change:
//   node tests/dashboard/make_study.mjs tests/testdata/results
import { writeFileSync } from "node:fs";
import { join } from "node:path";

const LAYERS = 8;
const HEADS = 8;
const NEURONS = 256;
const GROUP = 32;
const LABELS = [
  "last instruction token",
  "<|eot_id|>",
  "<|start_header_id|>",
  "assistant",
  "<|end_header_id|>",
  "\n\n",
];
const CATEGORIES = ["fraud", "hacking", "violence", "weapons", "self_harm"];
const REFUSED = "I cannot help with that. This text is synthetic.";
const ANSWERED = "Here is an answer. This text is synthetic.";

// Mulberry32: the same study on every machine.
let state = 7;
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}
const noise = (size) => size * (random() + random() + random() - 1.5);
const rounded = (value) => Math.round(value * 1e4) / 1e4;

function wilson(successes, total) {
  const z = 1.959963984540054;
  const p = successes / total;
  const center = (p + (z * z) / (2 * total)) / (1 + (z * z) / total);
  const half = (z * Math.sqrt((p * (1 - p)) / total + (z * z) / (4 * total * total))) / (1 + (z * z) / total);
  return {
    success_count: successes,
    total_count: total,
    rate: p,
    lower: successes === 0 ? 0 : rounded(center - half),
    upper: successes === total ? 1 : rounded(center + half),
  };
}

const pairs = CATEGORIES.flatMap((category) =>
  [1, 2, 3].map((i) => ({
    id: `${category}-${i}`,
    category,
    harmful: `Synthetic harmful request ${i} about ${category}?`,
    harmless: `Synthetic harmless request ${i} about ${category}?`,
  })),
);

const model = {
  name: "synthetic-8-layer",
  model_hash: "5e17".repeat(16),
  quantization: "QUANTIZATION_NONE",
  device: "DEVICE_CPU",
  server_version: "0.1.0",
};
const provenance = (command, seconds) => ({
  model,
  client_version: "0.1.0",
  create_time: "2026-01-02T03:04:05Z",
  elapsed: `${seconds}s`,
  seed: "17",
  arguments: [command],
  prompts_path: "data/prompts.json",
  pair_count: pairs.length,
});

// Refusal is written by layers 2 to 5 and moves from the instruction to the tail.
const PLANTED = { "3/5": 0.42, "4/1": 0.31, "2/6": 0.22, "5/3": 0.17, "4/7": 0.12, "6/0": -0.08 };
const PLANTED_GROUPS = { "3/64": 0.24, "4/160": 0.19, "5/32": 0.11, "2/96": 0.09 };

function estimate(mean, spread) {
  return {
    mean: rounded(mean),
    lower: rounded(mean - spread),
    upper: rounded(mean + spread),
    sample_count: pairs.length,
  };
}

function effectsOf(component, strength, spread, withPairs) {
  return ["PATCH_DIRECTION_DENOISING", "PATCH_DIRECTION_NOISING"].map((direction, index) => {
    const mean = strength * (index === 0 ? 1 : 0.85) + noise(0.02);
    const effect = { component, direction, effect: estimate(mean, spread) };
    if (withPairs) {
      effect.pair_effects = pairs.map(() => rounded(mean + noise(spread * 2)));
      effect.pair_indices = pairs.map((_, pair) => pair);
    }
    return effect;
  });
}

function positionEffects() {
  const effects = [];
  for (const [kind, name, scale] of [
    ["RESID_PRE", "resid_pre", 1],
    ["ATTN_OUT", "attn_out", 0.35],
    ["MLP_OUT", "mlp_out", 0.2],
  ]) {
    for (let layer = 0; layer < LAYERS; ++layer) {
      for (let i = 0; i < LABELS.length; ++i) {
        const position = i - LABELS.length;
        const atInstruction = i === 0 ? Math.max(0, 1 - layer / 3) : 0;
        const atTail =
          i === LABELS.length - 1
            ? 1 / (1 + Math.exp(4 - 1.5 * layer))
            : i === 1
              ? Math.exp(-((layer - 3) ** 2) / 2) * 0.6
              : 0;
        const component = {
          kind: `COMPONENT_KIND_${kind}`,
          layer,
          position,
          name: `L${layer}.${name}@${position}`,
        };
        effects.push(...effectsOf(component, scale * (atInstruction + atTail), 0.05, false));
      }
    }
  }
  return effects;
}

function rankedEffects() {
  const effects = [];
  for (let layer = 0; layer < LAYERS; ++layer) {
    for (let head = 0; head < HEADS; ++head) {
      const component = { kind: "COMPONENT_KIND_HEAD", layer, head, name: `L${layer}.H${head}` };
      effects.push(...effectsOf(component, PLANTED[`${layer}/${head}`] ?? noise(0.02), 0.04, true));
    }
    for (let begin = 0; begin < NEURONS; begin += GROUP) {
      const component = {
        kind: "COMPONENT_KIND_NEURON_GROUP",
        layer,
        neuron_begin: begin,
        neuron_end: begin + GROUP,
        name: `L${layer}.N${begin}-${begin + GROUP - 1}`,
      };
      effects.push(...effectsOf(component, PLANTED_GROUPS[`${layer}/${begin}`] ?? noise(0.015), 0.03, true));
    }
  }
  return effects;
}

// Best first, as the clients write it.
function rank(effects) {
  const byName = new Map();
  for (const { component, direction, effect } of effects) {
    const ranked = byName.get(component.name) ?? { component };
    ranked[direction === "PATCH_DIRECTION_DENOISING" ? "denoising" : "noising"] = effect;
    byName.set(component.name, ranked);
  }
  return [...byName.values()]
    .map((ranked) => ({ ...ranked, score: (ranked.denoising.mean + ranked.noising.mean) / 2 }))
    .sort((a, b) => b.score - a.score)
    .map((ranked, index) => ({ rank: index + 1, ...ranked }));
}

function layersOf(ranking) {
  return Array.from({ length: LAYERS }, (_, layer) => {
    const sum = (kind) =>
      rounded(
        ranking
          .filter(({ component, score }) => component.layer === layer && component.kind === kind && score > 0)
          .reduce((total, { score }) => total + score, 0),
      );
    const head_importance = sum("COMPONENT_KIND_HEAD");
    const neuron_importance = sum("COMPONENT_KIND_NEURON_GROUP");
    return {
      layer,
      importance: rounded(head_importance + neuron_importance),
      head_importance,
      neuron_importance,
    };
  });
}

function judged(pair, prompt_class, refused) {
  return {
    pair_id: pair.id,
    category: pair.category,
    prompt_class,
    prompt: prompt_class === "PROMPT_CLASS_HARMFUL" ? pair.harmful : pair.harmless,
    response: refused ? REFUSED : ANSWERED,
    refused,
    refused_at_start: refused,
    matched_phrase: refused ? "I cannot" : "",
    logit_difference: rounded((refused ? 6 : -5) + noise(1)),
    refusal_log_odds: rounded((refused ? 5 : -6) + noise(1)),
  };
}

function baseline() {
  const responses = pairs.flatMap((pair, index) => [
    judged(pair, "PROMPT_CLASS_HARMFUL", index !== 4),
    judged(pair, "PROMPT_CLASS_HARMLESS", index === 7),
  ]);
  const rate = (keep) => {
    const kept = responses.filter(keep);
    return wilson(kept.filter(({ refused }) => refused).length, kept.length);
  };
  const ofClass = (name) => (response) => response.prompt_class === name;
  return {
    provenance: provenance("baseline", 12.5),
    harmful: rate(ofClass("PROMPT_CLASS_HARMFUL")),
    harmless: rate(ofClass("PROMPT_CLASS_HARMLESS")),
    harmful_at_start: rate(ofClass("PROMPT_CLASS_HARMFUL")),
    harmless_at_start: rate(ofClass("PROMPT_CLASS_HARMLESS")),
    categories: CATEGORIES.map((category) => ({
      category,
      harmful: rate(
        (response) => response.category === category && ofClass("PROMPT_CLASS_HARMFUL")(response),
      ),
      harmless: rate(
        (response) => response.category === category && ofClass("PROMPT_CLASS_HARMLESS")(response),
      ),
    })),
    responses,
  };
}

function ablation(ranking) {
  const counts = [0, 1, 2, 4, 8, 16];
  const refusals = {
    MEAN: [14, 13, 9, 4, 1, 0],
    ZERO: [14, 12, 8, 5, 2, 1],
    RESAMPLE: [14, 13, 11, 7, 3, 2],
  };
  const curves = Object.entries(refusals).map(([method, harmful]) => ({
    method: `ABLATION_METHOD_${method}`,
    top: counts.map((component_count, index) => ({
      component_count,
      components: ranking.slice(0, component_count).map(({ component }) => component),
      harmful: wilson(harmful[index], 15),
      harmless: wilson(index < 4 ? 1 : 0, 15),
      parameter_share: rounded(component_count * 0.0031),
      samples: pairs
        .slice(0, 5)
        .flatMap((pair) => [
          judged(pair, "PROMPT_CLASS_HARMFUL", component_count < 4),
          judged(pair, "PROMPT_CLASS_HARMLESS", false),
        ]),
    })),
    random: counts.slice(1).map((component_count, index) => {
      const draws = [14, 14 - (index > 2 ? 1 : 0), 13 - (index > 3 ? 2 : 0)];
      return {
        component_count,
        draw_count: draws.length,
        harmful: wilson(
          draws.reduce((a, b) => a + b),
          45,
        ),
        harmless: wilson(2, 45),
        draw_rates: draws.map((draw) => draw / 15),
      };
    }),
  }));
  const criterion = (top_drop_points, random_drop_points) => ({
    threshold_points: 30,
    component_count: 8,
    top_drop_points,
    random_drop_points,
    top_exceeds: true,
    random_stays_below: true,
    met: true,
  });
  return {
    provenance: provenance("ablation", 95.25),
    patching_results_path: "outputs/results/02_patching_results.json",
    curves,
    criterion: criterion(86.667, 4.444),
    positions: [],
    held_out_criterion: criterion(78.333, 2.5),
    held_out_baseline: {
      component_count: 0,
      harmful: wilson(114, 120),
      harmless: wilson(3, 120),
      parameter_share: 0,
    },
    held_out_top: {
      component_count: 8,
      harmful: wilson(20, 120),
      harmless: wilson(2, 120),
      parameter_share: 0.0248,
    },
  };
}

// A circuit of the planted heads and some single neurons, a backup, a decoy, and edges of every kind.
// Two heads share a key and value head.
const CIRCUIT_NEURONS = { "3/70": 0.16, "4/171": 0.12, "5/40": -0.05 };

function circuitNodes() {
  const measured = (name, place, role, strength) => ({
    name,
    role: `CIRCUIT_ROLE_${role}`,
    ...place,
    denoising: estimate(strength * 0.8, 0.02),
    noising: estimate(strength, 0.03),
    p_value: 0.0078,
    attribution: rounded(strength * 0.9),
    backs_up: [],
  });
  const members = [
    ...Object.entries(PLANTED).map(([key, strength]) => {
      const [layer, head] = key.split("/").map(Number);
      return measured(`L${layer}.H${head}`, { layer, head }, "MEMBER", strength);
    }),
    ...Object.entries(CIRCUIT_NEURONS).map(([key, strength]) => {
      const [layer, neuron] = key.split("/").map(Number);
      return measured(`L${layer}.N${neuron}`, { layer, neuron }, "MEMBER", strength);
    }),
  ].sort((a, b) => Math.abs(b.noising.mean) - Math.abs(a.noising.mean));
  const backup = measured("L5.H6", { layer: 5, head: 6 }, "BACKUP", 0.01);
  delete backup.denoising;
  return [
    ...members,
    { ...backup, backs_up: ["L3.H5"], conditional: estimate(0.27, 0.04) },
    { ...measured("L6.H4", { layer: 6, head: 4 }, "DECOY", 0.001), p_value: 1, direct_attribution: 0.19 },
  ];
}

function circuitEdges() {
  const edge = (sender, receiver, strength, conditional_on = []) => ({
    sender,
    receiver,
    ...(conditional_on.length === 0 ? { denoising: estimate(strength * 0.7, 0.02) } : {}),
    noising: estimate(strength, 0.03),
    p_value: 0.0147,
    attribution: rounded(strength * 1.1),
    conditional_on,
  });
  return [
    edge("L3.H5", "L4.q1", 0.28),
    edge("embed", "L2.v3", 0.22),
    edge("L2.H6", "L3.k2", 0.19),
    edge("L4.mlp", "final", 0.17),
    edge("L3.H5", "L3.mlp_in", 0.15),
    edge("L4.H1", "L4.mlp_in", 0.12),
    edge("L3.mlp", "L5.v1", 0.1),
    edge("L5.H3", "final", 0.09),
    edge("L2.H6", "L4.v3", 0.07),
    edge("embed", "L3.q5", 0.05),
    edge("L6.H0", "final", -0.06),
    edge("L5.H6", "final", 0.21, ["L3.H5"]),
    edge("L2.H6", "L5.q6", 0.08, ["L3.H5"]),
  ];
}

// Logistic in the logarithm of the share.
function circuitCurve(total, half, steepness) {
  const points = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1].map((share) => ({
    share,
    count: Math.max(1, Math.round(share * total)),
    faithfulness: estimate(share === 1 ? 1 : 1 / (1 + (half / share) ** steepness), share === 1 ? 0 : 0.03),
  }));
  const area = (valueOf) =>
    rounded(
      points
        .slice(1)
        .reduce(
          (sum, point, i) =>
            sum + ((point.share - points[i].share) * (valueOf(point) + valueOf(points[i]))) / 2,
          0,
        ),
    );
  return {
    points,
    cpr: area(({ faithfulness }) => faithfulness.mean),
    cmd: area(({ faithfulness }) => Math.abs(1 - faithfulness.mean)),
  };
}

function circuit() {
  const nodes = circuitNodes();
  return {
    provenance: provenance("circuit", 21.5),
    pair_ids: pairs.map(({ id }) => id),
    test_pair_ids: Array.from({ length: 30 }, (_, i) => `heldout-${i + 1}`),
    method: "ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS",
    least_effect: 0.02,
    nodes,
    edges: circuitEdges(),
    head_agreement: {
      component_count: LAYERS * HEADS,
      spearman: 0.9321,
      leader_count: 10,
      missed_leaders: [],
    },
    neuron_group_agreement: {
      component_count: (LAYERS * NEURONS) / GROUP,
      spearman: 0.8712,
      leader_count: 10,
      missed_leaders: ["L2.N96-127"],
    },
    edge_curve: circuitCurve(4557, 0.03, 1.8),
    node_curve: circuitCurve(72, 0.07, 1.5),
    neuron_curve: circuitCurve(2112, 0.15, 1.2),
    faithfulness: estimate(0.62, 0.04),
    complement_faithfulness: estimate(0.08, 0.02),
    minimality: nodes
      .filter(({ role }) => role !== "CIRCUIT_ROLE_DECOY")
      .map(({ name, noising }) => ({ name, drop: estimate(noising.mean / 4, 0.01) })),
    specificity: estimate(0.0021, 0.0004),
    random_specificity: estimate(0.0007, 0.0002),
    stability: { resample_count: 100, edge_count: 13, mean_jaccard: 0.8123, low_jaccard: 0.6471 },
    parameter_share: 0.0213,
    run_count: 2480,
    round_count: 2,
    head_count: HEADS,
    key_value_head_count: HEADS / 2,
  };
}

// One element a line: readable in a diff, and small.
function toJson(message) {
  const fields = Object.entries(message).map(([name, value]) =>
    Array.isArray(value)
      ? `"${name}": [${value.map((item) => `\n    ${JSON.stringify(item)}`).join(",")}\n  ]`
      : `"${name}": ${JSON.stringify(value)}`,
  );
  return `{\n  ${fields.join(",\n  ")}\n}\n`;
}

const folder = process.argv[2];
const ranked = rankedEffects();
const ranking = rank(ranked);
const patching = {
  provenance: provenance("patching", 301.75),
  layer_count: LAYERS,
  head_count: HEADS,
  neuron_count: NEURONS,
  pair_ids: pairs.map(({ id }) => id),
  positions: LABELS.map((_, i) => i - LABELS.length),
  position_labels: LABELS,
  effects: [...positionEffects(), ...ranked],
  ranking: ranking.slice(0, 20),
  layers: layersOf(ranking),
  run_count: 6240,
};
writeFileSync(join(folder, "01_baseline_results.json"), toJson(baseline()));
writeFileSync(join(folder, "02_patching_results.json"), toJson(patching));
writeFileSync(join(folder, "03_ablation_results.json"), toJson(ablation(ranking)));
writeFileSync(join(folder, "05_circuit_results.json"), toJson(circuit()));
