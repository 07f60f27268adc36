// Pieces of the page that views are made of.

// element("p", {class: "how"}, "text", child): texts are never read as HTML.
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Sets styles through the object model, which the page's own rules allow.
function styled(node, styles) {
  Object.assign(node.style, styles);
  return node;
}

function find(selector) {
  return document.querySelector(selector);
}

function missingNotice(what, command) {
  return element(
    "p",
    { class: "missing" },
    `This study has no ${what} yet. `,
    element("code", {}, command),
    " makes them; then render the dashboard again.",
  );
}

// Says in a view what is missing and which command makes it.
function showMissing(viewId, what, command) {
  find(`#${viewId} .plot`).replaceChildren(missingNotice(what, command));
}

function drawPlot(viewId, traces, layout, summary) {
  const plot = find(`#${viewId} .plot`);
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", summary);
  return Plotly.react(plot, traces, layout, plotConfig(viewId));
}

// A set of radio buttons; `options` are [value, label] pairs.
function addSegments(viewId, title, options, selected, onChange) {
  const segments = element("div", { class: "segments" });
  for (const [value, label] of options) {
    const input = element("input", { type: "radio", name: `${viewId}-${title}`, value });
    input.checked = value === selected;
    input.addEventListener("change", () => onChange(value));
    segments.append(element("label", {}, input, element("span", {}, label)));
  }
  find(`#${viewId} .controls`).append(element("fieldset", {}, element("legend", {}, title), segments));
}

// `columns`: {title, right, cell(row)}; the first becomes the row's header.
function makeTable(columns, rows, caption) {
  const head = element(
    "tr",
    {},
    ...columns.map((column) =>
      element("th", { scope: "col", class: column.right ? "right" : "" }, column.title),
    ),
  );
  const body = rows.map((row) =>
    element(
      "tr",
      {},
      ...columns.map((column, index) => {
        const attributes = { class: [column.right ? "right" : "", column.class || ""].join(" ").trim() };
        return index === 0
          ? element("th", { scope: "row", ...attributes }, column.cell(row))
          : element("td", attributes, column.cell(row));
      }),
    ),
  );
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  if (caption) table.prepend(element("caption", {}, caption));
  return table;
}

// The numbers behind a plot, for those who read tables better. `tables`: {columns, rows, caption}.
function setNumberTables(viewId, tables) {
  const figure = find(`#${viewId} figure`);
  const before = figure.querySelector("details");
  const wasOpen = before ? before.open : false;
  if (before) before.remove();
  const details = element(
    "details",
    { class: "numbers" },
    element("summary", {}, "Show the numbers"),
    ...tables.map(({ columns, rows, caption }) =>
      element("div", { class: "scroll", tabindex: "0" }, makeTable(columns, rows, caption)),
    ),
  );
  details.open = wasOpen;
  figure.append(details);
}

function setNumbers(viewId, columns, rows) {
  setNumberTables(viewId, [{ columns, rows }]);
}

function setCaption(viewId, text) {
  find(`#${viewId} figcaption`).textContent = text;
}
