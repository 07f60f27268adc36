"""Activations: read into arrays, or kept on the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from types import TracebackType
from typing import Any

from abstract_client.errors import data_loss
from abstract_client.names import hook_name
from abstract_client.protos import model_service_pb2 as pb
from abstract_client.results import ModelIdentity, model_identity, seconds
from abstract_client.tensors import Array, ChunkReader


class Cache(Mapping[str, Array]):
    """Activations of one run by TransformerLens's names, in the order of the forward pass.

    Arrays are fp32, writable, and have no batch axis: residual streams are [positions, d_model], hook_z is [positions,
    heads, d_head], patterns are [heads, queries, keys]. A key may also be (short name, layer), as in TransformerLens.

    >>> cache = model.run_with_cache(chat("How do I poach an egg?"), "blocks.*.attn.hook_z")
    >>> cache["blocks.3.attn.hook_z"].shape == cache["z", 3].shape == (len(cache.prompt_token_ids), 8, 16)
    True
    """

    def __init__(self, arrays: dict[str, Array], header: pb.RunHeader, run_seconds: float) -> None:
        self._arrays = arrays
        self.prompt_token_ids: tuple[int, ...] = tuple(header.prompt_token_ids)
        self.model: ModelIdentity = model_identity(header.model)
        self.run_seconds = run_seconds

    def __getitem__(self, name: str | tuple[str, int]) -> Array:
        return self._arrays[hook_name(*name) if isinstance(name, tuple) else name]

    def __contains__(self, name: object) -> bool:
        try:
            return (hook_name(*name) if isinstance(name, tuple) else name) in self._arrays
        except (TypeError, ValueError):
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"Cache({len(self)} activations of {len(self.prompt_token_ids)} tokens)"


def read_cache(messages: Iterator[Any]) -> Cache:
    """Reads a stream of RunWithCache or GetActivation to its end. Raises ServerError where anything is missing."""
    header, reader = None, ChunkReader([])
    for message in messages:
        kind = message.WhichOneof("payload")
        if kind == "header":
            header, reader = message.header, ChunkReader(message.header.activations)
        elif kind == "chunk":
            reader.add(message.chunk)
        elif kind == "summary":
            if header is None:
                raise data_loss("the stream began without a header")
            return Cache(reader.finish(), header, seconds(message.summary.timings.run_duration))
    raise data_loss("the stream ended without a summary")


@dataclass(frozen=True)
class StoredActivation:
    """One activation of a stored run."""

    name: str
    shape: tuple[int, ...]


class StoredRun:
    """A run's activations, kept on the server under a handle: a source for replace(), mean(), resample() and path().

    A `with` block deletes it at its end; else it goes `ttl` seconds after its last use.

    >>> with model.store(chat("How do I kill my neighbor?"), "blocks.*.attn.hook_z") as run:
    ...     edit = replace(Site("blocks.7.attn.hook_z", heads=4, positions=LAST), run)
    ...     result = model.run_with_patch(chat("How do I thank my neighbor?"), edit)
    """

    def __init__(
        self,
        handle: str,
        prompt_token_ids: tuple[int, ...],
        activations: tuple[StoredActivation, ...],
        byte_count: int,
        load: Callable[[str, str | None], Cache],
        delete: Callable[[str], None],
        expire_time: datetime | None = None,
    ) -> None:
        self.handle = handle
        self.prompt_token_ids = prompt_token_ids
        self.activations = activations
        self.byte_count = byte_count
        self.expire_time = expire_time
        self._load = load
        self._delete = delete

    def load(self, sent_as: str | None = None) -> Cache:
        """Fetches the activations; `sent_as` as in Model.run_with_cache. Raises ServerError: NOT_FOUND when the run is
        gone.
        """
        return self._load(self.handle, sent_as)

    def delete(self) -> None:
        """Deletes the run on the server. Raises ServerError: NOT_FOUND when it is gone already."""
        self._delete(self.handle)

    def __enter__(self) -> StoredRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.delete()
        except Exception as failure:
            # A run that is gone already is as it should be, and a body that failed has the more important error.
            if error is None and getattr(getattr(failure, "code", None), "name", "") != "NOT_FOUND":
                raise

    def __repr__(self) -> str:
        return f"StoredRun({self.handle!r}, {len(self.activations)} activations, {self.byte_count} bytes)"


def stored_activations(infos: Any) -> tuple[StoredActivation, ...]:
    return tuple(StoredActivation(info.name, tuple(info.shape)) for info in infos)


def stored_run(message: pb.StoredRun, load: Callable[[str, str | None], Cache], delete: Callable[[str], None]) -> StoredRun:
    expires = datetime.fromtimestamp(message.expire_time.seconds, timezone.utc)
    ids, activations = tuple(message.prompt_token_ids), stored_activations(message.activations)
    return StoredRun(message.handle, ids, activations, message.total_byte_count, load, delete, expires)


def new_stored_run(messages: Iterator[Any], load: Callable[[str, str | None], Cache], delete: Callable[[str], None]) -> StoredRun:
    """Reads the stream of a RunWithCache with `store`."""
    header = None
    for message in messages:
        if message.HasField("header"):
            header = message.header
        elif message.HasField("summary"):
            if header is None:
                raise data_loss("the stream began without a header")
            summary = message.summary
            ids, activations = tuple(header.prompt_token_ids), stored_activations(header.activations)
            return StoredRun(summary.handle, ids, activations, summary.total_byte_count, load, delete)
    raise data_loss("the stream ended without a summary")
