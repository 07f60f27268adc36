"""Runs of circuits: everything outside stays as it is in another prompt's run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from abstract_client.checks import whole_number
from abstract_client.errors import data_loss
from abstract_client.positions import indices
from abstract_client.protos import model_service_pb2 as pb
from abstract_client.results import ModelIdentity, RunMetrics, model_identity, optional, run_metrics


@dataclass(frozen=True)
class Circuit:
    """The `leading` first of the nodes or edges that are given, and those at `members`, less those at `excluded`.

    `complement`: everything but these.
    """

    leading: int = 0
    members: Iterable[int] = ()
    excluded: Iterable[int] = ()
    complement: bool = False

    def message(self) -> pb.CircuitMembers:
        members, excluded = list(self.members), list(self.excluded)
        made = pb.CircuitMembers(
            leading=whole_number(self.leading, "leading"),
            members=indices(members, "members") if members else [],
            complement=self.complement,
        )
        getattr(made, "except").extend(indices(excluded, "excluded") if excluded else [])
        return made


@dataclass(frozen=True)
class CircuitResult:
    """One circuit's run. `faithfulness`: (this - source) / (clean - source) of the logit difference; 1 is the model's.

    `edge_count`: edges of the model in the circuit.
    """

    metrics: RunMetrics
    faithfulness: float | None
    edge_count: int


@dataclass(frozen=True)
class CircuitRun:
    """`clean`: the prompt's own run, the whole model's. `source`: the other prompt's, that of the empty circuit."""

    clean: RunMetrics
    source: RunMetrics
    results: tuple[CircuitResult, ...]
    model: ModelIdentity


def read_circuits(messages: Iterator[Any]) -> CircuitRun:
    """Reads a stream of RunCircuit to its end. Raises ServerError where anything is missing."""
    header: pb.CircuitHeader | None = None
    results: list[CircuitResult] = []
    ended = False
    for message in messages:
        kind = message.WhichOneof("payload")
        if kind == "header":
            header = message.header
        elif kind == "result":
            result = message.result
            if result.circuit_index != len(results):
                raise data_loss(f"circuit {result.circuit_index} came after {len(results)} others")
            faithfulness = optional(result, "faithfulness")
            results.append(CircuitResult(run_metrics(result.metrics), faithfulness, result.edge_count))
        elif kind == "summary":
            ended = True
    if header is None or not ended or len(results) != header.circuit_count:
        raise data_loss("the stream ended before all circuits came")
    return CircuitRun(
        run_metrics(header.clean), run_metrics(header.source), tuple(results), model_identity(header.model)
    )
