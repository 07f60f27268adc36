"""Parts of requests that several calls share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Union

from abstract_client.checks import finite_number, seed_number, whole_number
from abstract_client.positions import Positions, position_selector
from abstract_client.prompts import token_ids
from abstract_client.protos import model_service_pb2 as pb

# Hook names: globs, or a function of names, as TransformerLens's names_filter.
Names = Union[str, Iterable[str], Callable[[str], bool], None]


def sampling(
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop_token_ids: Iterable[int] = (),
    stop_at_eos: bool = True,
) -> pb.SamplingOptions:
    """SamplingOptions of checked values."""
    if finite_number(temperature, "temperature") < 0:
        raise ValueError(f"temperature: {temperature} is negative")
    if not 0 < finite_number(top_p, "top_p") <= 1:
        raise ValueError(f"top_p: {top_p} is not in (0, 1]")
    return pb.SamplingOptions(
        max_new_tokens=whole_number(max_new_tokens, "max_new_tokens", least=1),
        temperature=float(temperature),
        top_k=whole_number(top_k, "top_k"),
        top_p=float(top_p),
        seed=seed_number(seed),
        stop_token_ids=token_ids(stop_token_ids, "stop_token_ids"),
        ignore_stop_tokens=not stop_at_eos,
    )


def activation_filter(
    names: Names, positions: Positions, default: list[str], all_names: Callable[[], list[str]]
) -> pb.ActivationFilter:
    """The filter of globs, or of a function, which `all_names` are asked for; None is `default`."""
    if names is None:
        patterns = default
    elif isinstance(names, str):
        patterns = [names]
    elif isinstance(names, Iterable):
        patterns = list(names)
    elif callable(names):
        patterns = [name for name in all_names() if names(name)]
    else:
        raise ValueError(f"names: {names!r} is neither a glob, a list of them, nor a function of names")
    if not patterns or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise ValueError("names: hook names or globs, of one or more")
    return pb.ActivationFilter(name_patterns=patterns, positions=position_selector(positions))
