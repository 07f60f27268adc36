"""What the server reduces over many prompts or tokens: means of activations, and cross-entropies of texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from abstract_client.errors import data_loss
from abstract_client.protos import model_service_pb2 as pb
from abstract_client.results import ModelIdentity, model_identity
from abstract_client.tensors import Array, ChunkReader


@dataclass(frozen=True)
class MeanActivations:
    """Activations' means over `prompt_count` prompts, and their variances (of a sample), by TransformerLens's names."""

    mean: dict[str, Array]
    variance: dict[str, Array]
    prompt_count: int
    model: ModelIdentity


def read_means(messages: Iterator[Any]) -> MeanActivations:
    """Reads a stream of RunMeanActivations to its end. Raises ServerError where anything is missing."""
    header, reader, ended = None, ChunkReader([]), False
    for message in messages:
        kind = message.WhichOneof("payload")
        if kind == "header":
            header, reader = message.header, ChunkReader(message.header.activations)
        elif kind == "chunk":
            reader.add(message.chunk)
        elif kind == "summary":
            ended = True
    if header is None or not ended:
        raise data_loss("the means ended without a summary")
    both = reader.finish()
    return MeanActivations(
        mean={name: array[0] for name, array in both.items()},
        variance={name: array[1] for name, array in both.items()},
        prompt_count=header.prompt_count,
        model=model_identity(header.model),
    )


@dataclass(frozen=True)
class TextScore:
    """One text's tokens that were scored, from `first_position` on, and the natural logarithms of their probabilities.

    `cross_entropy`: in nats a token.
    """

    first_position: int
    token_ids: tuple[int, ...]
    log_probabilities: npt.NDArray[np.float64]
    cross_entropy: float


def read_scores(messages: Iterator[Any], count: int) -> list[TextScore]:
    """Reads a stream of ScoreTexts to its end. Raises ServerError where anything is missing."""
    scores: list[TextScore] = []
    ended = False
    for message in messages:
        ended = ended or message.HasField("summary")
        if not message.HasField("score"):
            continue
        score: pb.TextScore = message.score
        if score.text_index != len(scores):
            raise data_loss(f"text {score.text_index} came where text {len(scores)} was due")
        scores.append(
            TextScore(
                first_position=score.first_position,
                token_ids=tuple(score.token_ids),
                log_probabilities=np.array(score.log_probabilities, dtype=np.float64),
                cross_entropy=score.cross_entropy,
            )
        )
    if not ended or len(scores) != count:
        raise data_loss(f"{len(scores)} of {count} texts were scored")
    return scores
