#!/usr/bin/env python3
"""Patched runs a second in Hugging Face transformers, the peer of `abstract-benchmark sweep`.

  tests/benchmarks/transformers_patching.py MODEL [--threads N] [--batch 16] [--repetitions 5]

Patches resid_pre, attn_out and mlp_out at each of the last five positions from another prompt's run, by forward hooks,
in bf16 with logits of the last position only: one site a forward pass, and many sites as rows of one batch.
"""

import argparse
import statistics
import time

import torch
from transformers import AutoModelForCausalLM


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="directory of a checkpoint in Hugging Face layout")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--prompt-tokens", type=int, default=24)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=5)
    return parser.parse_args()


class Patcher:
    """Records or replaces the three sites of every layer."""

    def __init__(self, layers):
        self.recorded = {}
        self.sites = None  # of each row of the batch: (name, layer, position); None: record
        for index, layer in enumerate(layers):
            layer.register_forward_pre_hook(
                lambda module, args, kwargs, index=index: self.before_layer(index, args, kwargs), with_kwargs=True
            )
            for name, module in (("attn_out", layer.self_attn), ("mlp_out", layer.mlp)):
                module.register_forward_hook(
                    lambda module, args, output, key=(name, index): self.after_module(key, output)
                )

    def edit(self, key, values):
        if self.sites is None:
            self.recorded[key] = values.detach().clone()
            return values
        rows = [(row, site[2]) for row, site in enumerate(self.sites) if site[:2] == key]
        if rows:
            values = values.clone()
            for row, position in rows:
                values[row, position] = self.recorded[key][0, position]
        return values

    def before_layer(self, index, args, kwargs):
        if args:
            return (self.edit(("resid_pre", index), args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self.edit(("resid_pre", index), kwargs["hidden_states"])}

    def after_module(self, key, output):
        if isinstance(output, tuple):
            return (self.edit(key, output[0]), *output[1:])
        return self.edit(key, output)


def runs_a_second(model, patcher, target, sites, batch):
    start = time.perf_counter()
    for first in range(0, len(sites), batch):
        patcher.sites = sites[first : first + batch]
        model(target.expand(len(patcher.sites), -1), logits_to_keep=1, use_cache=False)
    return len(sites) / (time.perf_counter() - start)


@torch.no_grad()
def main():
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.bfloat16).eval()
    patcher = Patcher(model.model.layers)
    target, source = torch.randint(model.config.vocab_size, (2, 1, arguments.prompt_tokens))
    model(source, logits_to_keep=1, use_cache=False)

    sites = [
        (name, layer, position)
        for name in ("resid_pre", "attn_out", "mlp_out")
        for layer in range(len(model.model.layers))
        for position in range(-5, 0)
    ]
    # An even sample: every site takes as long as any other.
    sample = sites[:: max(1, len(sites) // (2 * arguments.batch))][: 2 * arguments.batch]
    single, batched = [], []
    runs_a_second(model, patcher, target, sample[:1], 1)  # warm up
    for _ in range(arguments.repetitions):
        single.append(runs_a_second(model, patcher, target, sample[: len(sample) // 4], 1))
        batched.append(runs_a_second(model, patcher, target, sample, arguments.batch))
    print(f"transformers bf16, {arguments.threads} threads, medians of {arguments.repetitions} [smallest, largest]")
    for name, values in (("one site a pass", single), (f"batches of {arguments.batch}", batched)):
        print(f"  {name:20s} {statistics.median(values):8.2f} runs/s [{min(values):.2f}, {max(values):.2f}]")


if __name__ == "__main__":
    main()
