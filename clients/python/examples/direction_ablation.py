"""A refusal direction: the difference in means of two kinds of prompts, ablated while the model answers.

The direction is found on the study's prompts and tried on held-out ones, beside a random direction. Each step has what
it is in TransformerLens in the comment before it.

    PYTHONPATH=clients/python python3 clients/python/examples/direction_ablation.py --output refusals.png

The embedded model is no large one: projected out everywhere, the direction makes it refuse everything. What it answers
has a component far below 0 and what it refuses one near 0, so that a component of 0 is still that of a refusal.
Subtracting the difference in one layer is what makes it answer.
"""

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

from abstract_client import LAST, Model, add, chat, project_out

DATA = Path(__file__).resolve().parents[3] / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default=None, help="HOST:PORT [$ABSTRACT_SERVER, else 127.0.0.1:50051]")
    parser.add_argument("--layer", type=int, help="where the direction is taken [five eighths of the way up]")
    parser.add_argument("--count", type=int, default=20, help="held-out prompts of each kind")
    parser.add_argument("--output", default="refusals.png")
    flags = parser.parse_args()
    pairs = json.loads((DATA / "prompts.json").read_text())["pairs"]
    held_out = json.loads((DATA / "heldout_prompts.json").read_text())["pairs"][: flags.count]
    phrases = json.loads((DATA / "refusal_phrases.json").read_text())["phrases"]

    # model = HookedTransformer.from_pretrained("...")
    model = Model(flags.server)
    layer = 5 * model.cfg.n_layers // 8 if flags.layer is None else flags.layer

    # def mean_of(prompts):
    #     _, cache = model.run_with_cache(prompts, names_filter=lambda name: name == f"blocks.{layer}.hook_resid_post")
    #     return cache["resid_post", layer][:, -1].mean(0)
    def mean_of(kind):
        name = f"blocks.{layer}.hook_resid_post"
        caches = [model.run_with_cache(chat(pair[kind]), name, positions=LAST) for pair in pairs]
        return np.mean([cache["resid_post", layer][0] for cache in caches], axis=0)

    # difference = mean_of(harmful_prompts) - mean_of(harmless_prompts)
    difference = mean_of("harmful") - mean_of("harmless")
    random = np.random.default_rng(0).standard_normal(difference.shape)
    random *= np.linalg.norm(difference) / np.linalg.norm(random)

    # def ablate(resid, hook):
    #     return resid - (resid @ unit)[..., None] * unit
    # hooks = [(utils.get_act_name(name, layer), ablate) for layer in layers for name in ("resid_pre", "resid_mid", ...)]
    def ablated(direction):
        return [project_out(f"blocks.*.hook_resid_{place}", direction) for place in ("pre", "mid", "post")]

    # def subtract(resid, hook):
    #     return resid - difference
    def subtracted(direction):
        return [add(f"blocks.{layer}.hook_resid_post", direction, scale=-1)]

    # with model.hooks(fwd_hooks=hooks):
    #     answer = model.generate(prompt, max_new_tokens=24, temperature=0)
    def refusals(kind, edits):
        answers = (model.generate_text(chat(pair[kind]), max_new_tokens=24, edits=edits) for pair in held_out)
        return sum(any(phrase in answer for phrase in phrases) for answer in answers) / len(held_out)

    conditions = {
        "unchanged": [],
        "projected out, all layers": ablated(difference),
        f"subtracted after layer {layer}": subtracted(difference),
        "random projected out": ablated(random),
        "random subtracted": subtracted(random),
    }
    rates = {name: [refusals(kind, edits) for kind in ("harmful", "harmless")] for name, edits in conditions.items()}

    figure, axes = pyplot.subplots(figsize=(8, 3))
    rows = np.arange(len(rates))
    for index, kind in enumerate(("harmful", "harmless")):
        axes.barh(rows + 0.4 * index, [100 * rate[index] for rate in rates.values()], 0.4, label=kind)
    axes.set_yticks(rows + 0.2, list(rates))
    axes.set(xlabel="refused, % of held-out prompts", xlim=(0, 100))
    axes.invert_yaxis()
    axes.legend()
    figure.savefig(flags.output, dpi=150, bbox_inches="tight")

    print(f"refused of {len(held_out)} held-out prompts of each kind: harmful, harmless")
    for name, (harmful, harmless) in rates.items():
        print(f"  {name:<28} {harmful:6.0%} {harmless:6.0%}")
    print(f"drawn in {flags.output}")


if __name__ == "__main__":
    main()
