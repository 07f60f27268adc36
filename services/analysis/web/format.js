"use strict";

// How numbers and names are written, in plots and tables alike.

const KINDS = {
  COMPONENT_KIND_RESID_PRE: "residual stream",
  COMPONENT_KIND_ATTN_OUT: "attention output",
  COMPONENT_KIND_MLP_OUT: "MLP output",
  COMPONENT_KIND_HEAD: "attention head",
  COMPONENT_KIND_NEURON_GROUP: "neuron group",
};
const METHODS = {
  ABLATION_METHOD_MEAN: "mean",
  ABLATION_METHOD_ZERO: "zero",
  ABLATION_METHOD_RESAMPLE: "resample",
};
const QUANTIZATIONS = { QUANTIZATION_NONE: "none", QUANTIZATION_NF4: "NF4 (4 bit)" };
const DEVICES = { DEVICE_CPU: "CPU", DEVICE_MPS: "MPS", DEVICE_CUDA: "CUDA" };

const MINUS = "\u2212";

function signed(value, digits = 2) {
  if (!Number.isFinite(Number(value))) return "–";
  return Number(value).toFixed(digits).replace("-", MINUS);
}

function percent(share, digits = 0) {
  return `${(100 * share).toFixed(digits)}\u00a0%`;
}

function points(value) {
  return `${signed(value, 0)}\u00a0point${Math.abs(Math.round(value)) === 1 ? "" : "s"}`;
}

// "0.41 [0.30, 0.52]"
function estimateText(estimate, digits = 2) {
  if (!estimate) return "–";
  const [mean, lower, upper] = [estimate.mean, estimate.lower, estimate.upper].map((value) =>
    signed(value, digits),
  );
  return `${mean} [${lower}, ${upper}]`;
}

// "95 % interval 70–99 %", never broken over lines.
function intervalText(rate) {
  return `95\u00a0%\u00a0interval\u00a0${(100 * rate.lower).toFixed(0)}\u2060–\u2060${percent(rate.upper)}`;
}

// "93 % (14 of 15, 95 % interval 70–99 %)"
function rateText(rate) {
  if (!rate || !rate.total_count) return "not measured";
  return `${percent(rate.rate)} (${rate.success_count} of ${rate.total_count}, ${intervalText(rate)})`;
}

function capitalized(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function categoryName(category) {
  return capitalized(String(category).replaceAll("_", " "));
}

// Tokens as labels: line breaks made visible.
function tokenText(label) {
  return String(label).replaceAll("\n", "↵").replace(/^ | $/g, "␣");
}

// `text` in lines of at most `width` characters, where it has blanks.
function wrapped(text, width) {
  return text.split(" ").reduce((lines, word) => {
    const last = lines[lines.length - 1];
    if (last !== undefined && `${last} ${word}`.length <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
    return lines;
  }, []);
}

// Plotly reads markup in its texts; data must not be taken for some.
function plotText(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function durationText(seconds) {
  const value = parseFloat(seconds);
  if (!Number.isFinite(value)) return "–";
  if (value < 90) return `${value.toFixed(1)} s`;
  return value < 5400 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(1)} h`;
}
