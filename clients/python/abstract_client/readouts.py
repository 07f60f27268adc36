"""The residual stream read as the model's head does: the logit lens, and direct logit attribution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from abstract_client.errors import data_loss
from abstract_client.protos import model_service_pb2 as pb
from abstract_client.results import TokenProbability, optional, token_probability
from abstract_client.tensors import Array


@dataclass(frozen=True)
class LensReading:
    """What the model would predict at a position if the stream at `name` went straight into the head.

    `target`: the token that is followed; `target_rank`: how many tokens are likelier. `kl_from_final`: in nats.
    """

    name: str
    layer: int
    position: int
    logit_difference: float | None
    refusal_log_odds: float | None
    kl_from_final: float
    target: TokenProbability
    target_log_probability: float
    target_rank: int
    top_tokens: tuple[TokenProbability, ...]


@dataclass(frozen=True)
class LensPrompt:
    """One prompt's readings, by position, then in the order of the pass."""

    prompt_token_ids: tuple[int, ...]
    prompt_pieces: tuple[str, ...]
    readings: tuple[LensReading, ...]


@dataclass(frozen=True)
class DirectContribution:
    """What one sender adds to the mean logit difference. `node`: of a head or a neuron."""

    name: str
    layer: int
    node: int | None
    contribution: float


@dataclass(frozen=True)
class DirectPosition:
    """One position. `mean_logit_difference` is what is explained, `contribution_sum` all but neurons', in logits.

    `contributions`: "embed", "L0.H1", "L0.mlp", in the order of the pass, then neurons "L0.N17", the largest first.
    """

    position: int
    mean_logit_difference: float
    contribution_sum: float
    contributions: tuple[DirectContribution, ...]

    def heads(self) -> Array:
        """The heads' contributions, fp32 [layers, heads]."""
        found = {}
        for entry in self.contributions:
            if entry.node is not None and entry.name == f"L{entry.layer}.H{entry.node}":
                found[entry.layer, entry.node] = entry.contribution
        shape = tuple(1 + max(key[axis] for key in found) for axis in range(2))
        made = np.zeros(shape, dtype=np.float32)
        for key, contribution in found.items():
            made[key] = contribution
        return made


@dataclass(frozen=True)
class DirectPrompt:
    """One prompt's positions."""

    prompt_token_ids: tuple[int, ...]
    prompt_pieces: tuple[str, ...]
    positions: tuple[DirectPosition, ...]


@dataclass
class _Position:
    message: pb.ReadoutPosition
    contributions: list[DirectContribution] = field(default_factory=list)

    def finish(self) -> DirectPosition:
        message = self.message
        return DirectPosition(
            message.position, message.mean_logit_difference, message.contribution_sum, tuple(self.contributions)
        )


@dataclass
class _Prompt:
    message: pb.ReadoutPrompt
    readings: list[LensReading] = field(default_factory=list)
    positions: list[_Position] = field(default_factory=list)

    def add(self, piece: pb.ReadoutPiece) -> None:
        self.readings += [_reading(reading) for reading in piece.readings]
        if piece.contributions and not self.positions:
            raise data_loss("contributions came before their position")
        for entry in piece.contributions:
            contribution = DirectContribution(entry.name, entry.site.layer, optional(entry, "node"), entry.contribution)
            self.positions[-1].contributions.append(contribution)

    def lens(self) -> LensPrompt:
        ids, pieces = tuple(self.message.prompt_token_ids), tuple(self.message.prompt_pieces)
        return LensPrompt(ids, pieces, tuple(self.readings))

    def direct(self) -> DirectPrompt:
        ids, pieces = tuple(self.message.prompt_token_ids), tuple(self.message.prompt_pieces)
        return DirectPrompt(ids, pieces, tuple(position.finish() for position in self.positions))


def _reading(message: pb.LensReading) -> LensReading:
    return LensReading(
        name=message.name,
        layer=message.site.layer,
        position=message.position,
        logit_difference=optional(message, "logit_difference"),
        refusal_log_odds=optional(message, "refusal_log_odds"),
        kl_from_final=message.kl_from_final,
        target=token_probability(message.target),
        target_log_probability=message.target_log_probability,
        target_rank=message.target_rank,
        top_tokens=tuple(token_probability(token) for token in message.top_tokens),
    )


def _read(messages: Iterator[Any]) -> list[_Prompt]:
    prompts: list[_Prompt] = []
    expected, ended = -1, False
    for message in messages:
        kind = message.WhichOneof("payload")
        if kind == "header":
            expected = message.header.prompt_count
        elif kind == "prompt":
            prompts.append(_Prompt(message.prompt))
        elif kind == "summary":
            ended = True
        elif not prompts:
            raise data_loss("readings came before their prompt")
        elif kind == "position":
            prompts[-1].positions.append(_Position(message.position))
        elif kind == "piece":
            prompts[-1].add(message.piece)
    if not ended or len(prompts) != expected:
        raise data_loss("the stream ended before all prompts came")
    return prompts


def read_lens(messages: Iterator[Any]) -> list[LensPrompt]:
    """Reads a stream of RunReadout with a logit lens to its end."""
    return [prompt.lens() for prompt in _read(messages)]


def read_direct(messages: Iterator[Any]) -> list[DirectPrompt]:
    """Reads a stream of RunReadout with direct attribution to its end."""
    return [prompt.direct() for prompt in _read(messages)]
