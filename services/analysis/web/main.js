// Draws everything, and again when the colours or the width ask for it.

async function showAll(data, firstTime) {
  const views = {
    patching: patchingView,
    layers: layersView,
    circuit: circuitView,
    faithfulness: faithfulnessView,
    ablation: ablationView,
    categories: categoriesView,
  };
  for (const [id, view] of Object.entries(views)) {
    try {
      await view(data, firstTime);
    } catch (error) {
      console.error(`view ${id}:`, error);
      find(`#${id} .plot`).replaceChildren(
        element("p", { class: "missing" }, `This view could not be drawn: ${error.message}`),
      );
    }
  }
}

async function start() {
  const data = JSON.parse(find("#data").textContent);
  data.study = data.run.study ?? {};
  showHeader(data);
  showRanking(data);
  showResponses(data);
  showComparison(data);
  showProvenance(data);
  await showAll(data, true);
  for (const query of [DARK, NARROW]) query.addEventListener("change", () => showAll(data, false));
  // Tests wait for this.
  document.documentElement.dataset.ready = "true";
}

start();
