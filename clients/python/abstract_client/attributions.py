"""What patching each node or edge would do, estimated from gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from abstract_client.errors import data_loss
from abstract_client.names import site_name
from abstract_client.protos import model_service_pb2 as pb
from abstract_client.results import optional
from abstract_client.tensors import Array, ChunkReader


class AttributionMethod(Enum):
    """GRADIENT: AtP. GRAD_DROP: AtP*'s. INTEGRATED_GRADIENTS: EAP-IG, inputs. RELEVANCE: RelP."""

    GRADIENT = pb.ATTRIBUTION_METHOD_GRADIENT
    GRAD_DROP = pb.ATTRIBUTION_METHOD_GRAD_DROP
    INTEGRATED_GRADIENTS = pb.ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS
    RELEVANCE = pb.ATTRIBUTION_METHOD_RELEVANCE


class AttributionMetric(Enum):
    """Which of RunMetrics' numbers is attributed."""

    LOGIT_DIFFERENCE = pb.ATTRIBUTION_METRIC_LOGIT_DIFFERENCE
    REFUSAL_LOG_ODDS = pb.ATTRIBUTION_METRIC_REFUSAL_LOG_ODDS
    KL_FROM_CLEAN = pb.ATTRIBUTION_METRIC_KL_FROM_CLEAN
    OPENINGS = pb.ATTRIBUTION_METRIC_OPENINGS


@dataclass(frozen=True)
class AttributionScore:
    """A node's score, in the metric's unit. `node`: a head or a neuron; None where a node is a whole position."""

    name: str
    layer: int
    position: int | None
    node: int | None
    score: float


@dataclass(frozen=True)
class AttributionEdge:
    """An edge's score: "L0.H1->L2.q3", "embed->L0.mlp_in", "L2.mlp->final"."""

    name: str
    score: float


@dataclass(frozen=True)
class Attribution:
    """One pair of prompts. `metric`, `source_metric`: of the prompt's run and of its counterfactual's.

    `scores`: by hook name, [positions, nodes], or [nodes] summed over positions; with `return_gradients` of the
    activations' shapes. `top`, `edges`: instead of these, where `top` was asked for, the largest by size first.
    """

    metric: float
    source_metric: float
    prompt_token_ids: tuple[int, ...]
    prompt_pieces: tuple[str, ...]
    source_token_ids: tuple[int, ...]
    scores: dict[str, Array]
    top: tuple[AttributionScore, ...]
    edges: tuple[AttributionEdge, ...]


class _Pair:
    def __init__(self, message: pb.AttributedPair) -> None:
        self._message = message
        self.reader = ChunkReader(message.tensors)
        self._top: list[AttributionScore] = []
        self._edges: list[AttributionEdge] = []

    def add(self, scores: pb.AttributionScores) -> None:
        self._top += [
            AttributionScore(
                site_name(score.site),
                score.site.layer,
                optional(score, "position"),
                optional(score, "node"),
                score.score,
            )
            for score in scores.scores
        ]
        self._edges += [AttributionEdge(edge.name, edge.score) for edge in scores.edges]

    def finish(self) -> Attribution:
        message = self._message
        return Attribution(
            metric=message.metric,
            source_metric=message.source_metric,
            prompt_token_ids=tuple(message.prompt_token_ids),
            prompt_pieces=tuple(message.prompt_pieces),
            source_token_ids=tuple(message.source_token_ids),
            scores=self.reader.finish(),
            top=tuple(self._top),
            edges=tuple(self._edges),
        )


def read_attributions(messages: Iterator[Any]) -> list[Attribution]:
    """Reads a stream of RunAttribution to its end. Raises ServerError where anything is missing."""
    pairs: list[_Pair] = []
    expected, ended = -1, False
    for message in messages:
        kind = message.WhichOneof("payload")
        if kind == "header":
            expected = message.header.pair_count
        elif kind == "pair":
            pairs.append(_Pair(message.pair))
        elif kind == "summary":
            ended = True
        elif not pairs:
            raise data_loss("scores came before their pair")
        elif kind == "chunk":
            pairs[-1].reader.add(message.chunk)
        elif kind == "scores":
            pairs[-1].add(message.scores)
    if not ended or len(pairs) != expected:
        raise data_loss("the stream ended before all pairs came")
    return [pair.finish() for pair in pairs]
