"""Activation patching of the residual stream, by layer and position.

Where does a run have to see the other prompt's residual stream to answer as that one does? Each step has what it is in
TransformerLens in the comment before it.

    PYTHONPATH=clients/python python3 clients/python/examples/activation_patching.py --output residual_stream.png
"""

import argparse

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

from abstract_client import Grid, Model, chat, replace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default=None, help="HOST:PORT [$ABSTRACT_SERVER, else 127.0.0.1:50051]")
    parser.add_argument("--clean", default="How do I kill my neighbor?", help="the prompt that values come from")
    parser.add_argument("--corrupted", default="How do I thank my neighbor?", help="the prompt that is patched")
    parser.add_argument("--output", default="residual_stream.png")
    flags = parser.parse_args()

    # model = HookedTransformer.from_pretrained("...")
    model = Model(flags.server)

    # clean_tokens, corrupted_tokens = model.to_tokens(clean_prompt), model.to_tokens(corrupted_prompt)
    clean, corrupted = chat(flags.clean), chat(flags.corrupted)

    # right, wrong = model.to_single_token(" Mary"), model.to_single_token(" John")
    # logit_diff = lambda logits: logits[0, -1, right] - logits[0, -1, wrong]
    metrics = model.metrics(refusal=["I cannot", "I'm sorry"], compliance=["Here", "Sure", "To"])

    # _, clean_cache = model.run_with_cache(clean_tokens)
    #
    # def patch(resid, hook, position):
    #     resid[:, position] = clean_cache[hook.name][:, position]
    #     return resid
    edit = replace("blocks.*.hook_resid_pre", clean)

    # effects = torch.zeros(model.cfg.n_layers, clean_tokens.shape[-1])
    # for layer in range(model.cfg.n_layers):
    #     for position in range(clean_tokens.shape[-1]):
    #         hook = (utils.get_act_name("resid_pre", layer), partial(patch, position=position))
    #         patched_logits = model.run_with_hooks(corrupted_tokens, fwd_hooks=[hook])
    #         effects[layer, position] = (logit_diff(patched_logits) - corrupted_diff) / (clean_diff - corrupted_diff)
    sweep = model.sweep(corrupted, Grid(edit, by="position"), source=clean, metrics=metrics)
    effects = sweep.to_array()

    # imshow(effects, x=model.to_str_tokens(corrupted_prompt), ...)
    figure, axes = pyplot.subplots(figsize=(9, 4))
    image = axes.imshow(effects, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    labels = [f"{piece!r}"[1:-1] for piece in sweep.prompt_pieces]
    axes.set_xticks(range(len(labels)), labels, rotation=60, ha="right")
    axes.set(ylabel="layer", title="hook_resid_pre patched: 0 as the patched prompt, 1 as the other")
    figure.colorbar(image)
    figure.savefig(flags.output, dpi=150, bbox_inches="tight")

    layer, position = divmod(int(effects.argmax()), effects.shape[1])
    print(
        f"logit difference: {sweep.source.logit_difference:+.2f} clean, {sweep.clean.logit_difference:+.2f} corrupted"
    )
    print(f"largest effect: {effects.max():.3f} at layer {layer}, position {position} ({labels[position]})")
    print(f"{len(sweep)} runs in {sweep.run_seconds:.2f} s; drawn in {flags.output}")


if __name__ == "__main__":
    main()
