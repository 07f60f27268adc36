// Colours and the frame that all plots share. The colours live in dashboard.css,
// so that plots and page change together.

const NARROW = matchMedia("(max-width: 40rem)");
const DARK = matchMedia("(prefers-color-scheme: dark)");

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// `name` at this opacity, for bands.
function faded(name, alpha) {
  const hex = color(name);
  const channel = (at) => parseInt(hex.slice(at, at + 2), 16);
  return `rgba(${channel(1)}, ${channel(3)}, ${channel(5)}, ${alpha})`;
}

// `name` upon paper, as `faded` shows it, but hiding what lies beneath.
function tinted(name) {
  const channel = (hex, at) => parseInt(hex.slice(at, at + 2), 16);
  const mixed = [1, 3, 5].map((at) =>
    Math.round(0.3 * channel(color(name), at) + 0.7 * channel(color("paper"), at)),
  );
  return `rgb(${mixed.join(", ")})`;
}

// Blue to orange by way of the paper's own tone: to be told apart with every kind
// of colour vision, and a zero that recedes.
function divergingScale() {
  return DARK.matches
    ? [
        [0, "#9fd0ff"],
        [0.25, "#3b7fc4"],
        [0.5, "#232935"],
        [0.75, "#c76a24"],
        [1, "#ffc491"],
      ]
    : [
        [0, "#174a86"],
        [0.25, "#6fa5d6"],
        [0.5, "#f3f1ea"],
        [0.75, "#e8944e"],
        [1, "#993f00"],
      ];
}

function axis(title, more = {}) {
  return {
    title: { text: title, standoff: 12, font: { size: 13, color: color("muted") } },
    gridcolor: color("grid"),
    linecolor: color("line"),
    zerolinecolor: color("line"),
    tickcolor: color("line"),
    automargin: true,
    ...more,
  };
}

function frame(more = {}) {
  return {
    font: { family: color("sans"), size: 13, color: color("ink") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 56, r: 16, t: 16, b: 48 },
    hoverlabel: {
      bgcolor: color("card"),
      bordercolor: color("line"),
      align: "left",
      font: { family: color("sans"), size: 13, color: color("ink") },
    },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: color("muted"), activecolor: color("ink") },
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom" },
    // Dragging over a plot on a phone should scroll the page.
    dragmode: NARROW.matches ? false : "zoom",
    ...more,
  };
}

function plotConfig(name) {
  return {
    responsive: true,
    displaylogo: false,
    // Plotly offers to upload a chart to its maker's server, and knows the address.
    showSendToCloud: false,
    plotlyServerURL: "",
    // Touch screens would show it always, over the legend.
    displayModeBar: NARROW.matches ? false : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { format: "svg", filename: `abstract-${name}` },
  };
}
