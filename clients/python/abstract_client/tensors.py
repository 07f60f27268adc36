"""Arrays on the wire, and activations put together from chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from abstract_client.errors import data_loss
from abstract_client.protos import model_service_pb2 as pb
from abstract_client.protos import tensor_pb2

Array = npt.NDArray[np.float32]


def to_tensor(values: npt.ArrayLike, argument: str) -> tensor_pb2.Tensor:
    """A Tensor of anything that numpy takes for an array of numbers; fp16 stays fp16, all else becomes fp32."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{argument}: an array of {array.dtype} where real numbers are needed")
    half = array.dtype == np.float16
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype="<f2" if half else "<f4").reshape(array.shape)
    if array.size == 0:
        raise ValueError(f"{argument}: shape {array.shape} has no elements")
    if not np.isfinite(array).all():
        raise ValueError(f"{argument}: holds NaN or infinity, or numbers that fp32 cannot hold")
    kind = tensor_pb2.DATA_TYPE_FLOAT16 if half else tensor_pb2.DATA_TYPE_FLOAT32
    return tensor_pb2.Tensor(data_type=kind, shape=array.shape, data=array.tobytes())


class ChunkReader:
    """Arrays of activations whose bytes come in chunks; every byte must come, once and in order."""

    def __init__(self, infos: Sequence[pb.ActivationInfo]) -> None:
        self._infos = infos
        self._arrays: list[Array] = []
        self._views: list[memoryview] = []
        self._received = [0] * len(infos)
        for info in infos:
            size = math.prod(info.shape)
            if info.data_type != tensor_pb2.DATA_TYPE_FLOAT32 or info.byte_count != 4 * size:
                raise data_loss(
                    f"{info.name}: {info.byte_count} bytes of type {info.data_type} are no fp32 {info.shape}"
                )
            flat: npt.NDArray[Any] = np.empty(size, dtype="<f4")
            self._views.append(memoryview(flat.data).cast("B"))
            self._arrays.append(flat.reshape(tuple(info.shape)))

    def add(self, chunk: pb.ActivationChunk) -> None:
        index, begin, end = chunk.activation_index, chunk.offset_bytes, chunk.offset_bytes + len(chunk.data)
        if index >= len(self._infos):
            raise data_loss(f"a chunk of activation {index}, of {len(self._infos)} announced")
        info = self._infos[index]
        if begin != self._received[index] or end > info.byte_count:
            raise data_loss(f"{info.name}: bytes {begin} to {end} came after {self._received[index]}")
        self._views[index][begin:end] = chunk.data
        self._received[index] = end

    def finish(self) -> dict[str, Array]:
        """The arrays by name. Raises ServerError (DATA_LOSS) where bytes are missing."""
        for info, received in zip(self._infos, self._received):
            if received != info.byte_count:
                raise data_loss(f"{info.name}: {received} of {info.byte_count} bytes came")
        return {info.name: array for info, array in zip(self._infos, self._arrays)}
