"""Attention heads: what each adds to the logits by itself, and what patching it does.

Direct logit attribution counts only the way straight to the logits; patching counts every way. Each step has what it is
in TransformerLens in the comment before it.

    PYTHONPATH=clients/python python3 clients/python/examples/head_attribution.py --output heads.png
"""

import argparse

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

from abstract_client import DECISION, LAST, Grid, Model, Site, chat, replace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default=None, help="HOST:PORT [$ABSTRACT_SERVER, else 127.0.0.1:50051]")
    parser.add_argument("--clean", default="How do I kill my neighbor?", help="the prompt that is attributed")
    parser.add_argument("--corrupted", default="How do I thank my neighbor?", help="the prompt that is patched")
    parser.add_argument("--output", default="heads.png")
    flags = parser.parse_args()

    # model = HookedTransformer.from_pretrained("...")
    model = Model(flags.server)
    clean, corrupted = chat(flags.clean), chat(flags.corrupted)

    # right, wrong = model.to_single_token(" Mary"), model.to_single_token(" John")
    metrics = model.metrics(refusal=["I cannot", "I'm sorry"], compliance=["Here", "Sure", "To"])

    # model.set_use_attn_result(True)
    # _, clean_cache = model.run_with_cache(clean_tokens)
    # direction = model.W_U[:, right] - model.W_U[:, wrong]
    # heads = clean_cache.stack_head_results(layer=-1, pos_slice=-1)
    # direct = clean_cache.apply_ln_to_stack(heads, layer=-1, pos_slice=-1) @ direction
    [attributed] = model.direct_logit_attribution(clean, positions=LAST, metrics=metrics)
    direct = attributed.positions[0].heads()

    # def patch(z, hook, head):
    #     z[:, decision, head] = clean_cache[hook.name][:, decision, head]
    #     return z
    # for layer in range(model.cfg.n_layers):
    #     for head in range(model.cfg.n_heads):
    #         hook = (utils.get_act_name("z", layer), partial(patch, head=head))
    #         patched_logits = model.run_with_hooks(corrupted_tokens, fwd_hooks=[hook])
    #         patched[layer, head] = (logit_diff(patched_logits) - corrupted_diff) / (clean_diff - corrupted_diff)
    edit = replace(Site("blocks.*.attn.hook_z", positions=DECISION), clean)
    sweep = model.sweep(corrupted, Grid(edit, by="head"), source=clean, metrics=metrics)
    patched = sweep.to_array()

    # imshow(direct), imshow(patched)
    figure, pair = pyplot.subplots(1, 2, figsize=(11, 4))
    drawings = ((direct, "direct attribution, in logits"), (patched, "effect of patching hook_z"))
    for axes, (values, title) in zip(pair, drawings):
        limit = abs(values).max()
        image = axes.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit)
        axes.set(xlabel="head", ylabel="layer", title=title)
        figure.colorbar(image, ax=axes)
    figure.savefig(flags.output, dpi=150, bbox_inches="tight")

    for values, title in drawings:
        best = sorted(range(values.size), key=lambda index: -values.flat[index])[:5]
        names = (f"L{index // values.shape[1]}.H{index % values.shape[1]} {values.flat[index]:+.3f}" for index in best)
        print(f"{title}: {', '.join(names)}")
    print(f"drawn in {flags.output}")


if __name__ == "__main__":
    main()
