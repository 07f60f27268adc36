"""Arrays on the wire, and activations put together from chunks."""

from __future__ import annotations

import math
import zlib
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


# Elements as numpy has them; of bfloat16 only the bits.
_ELEMENTS = {
    tensor_pb2.DATA_TYPE_FLOAT32: "<f4",
    tensor_pb2.DATA_TYPE_FLOAT16: "<f2",
    tensor_pb2.DATA_TYPE_BFLOAT16: "<u2",
}
_DATA_TYPES = {
    "float32": tensor_pb2.DATA_TYPE_FLOAT32,
    "float16": tensor_pb2.DATA_TYPE_FLOAT16,
    "bfloat16": tensor_pb2.DATA_TYPE_BFLOAT16,
}


def data_type(name: str | None, argument: str) -> Any:
    """The number of "float32", "float16" or "bfloat16"; None: whatever the server sends unasked."""
    if name is None:
        return tensor_pb2.DATA_TYPE_UNSPECIFIED
    if name not in _DATA_TYPES:
        raise ValueError(f"{argument}: {name!r} is none of {', '.join(_DATA_TYPES)}")
    return _DATA_TYPES[name]


def _to_float32(array: npt.NDArray[Any], sent_as: int) -> Array:
    if sent_as == tensor_pb2.DATA_TYPE_BFLOAT16:
        return (array.astype("<u4") << 16).view("<f4")
    return array.astype("<f4", copy=False)


class ChunkReader:
    """Arrays of activations whose bytes come in chunks; every byte must come, once and in order."""

    def __init__(self, infos: Sequence[pb.ActivationInfo]) -> None:
        self._infos = infos
        self._arrays: list[npt.NDArray[Any]] = []  # as they are sent
        self._views: list[memoryview] = []
        self._received = [0] * len(infos)
        for info in infos:
            size = math.prod(info.shape)
            element = _ELEMENTS.get(info.data_type)
            if element is None or info.byte_count != np.dtype(element).itemsize * size:
                raise data_loss(f"{info.name}: {info.byte_count} bytes of type {info.data_type} are no {info.shape}")
            flat: npt.NDArray[Any] = np.empty(size, dtype=element)
            self._views.append(memoryview(flat.data).cast("B"))
            self._arrays.append(flat.reshape(tuple(info.shape)))

    def add(self, chunk: pb.ActivationChunk) -> None:
        index, begin, end = chunk.activation_index, chunk.offset_bytes, chunk.offset_bytes + len(chunk.data)
        if index >= len(self._infos):
            raise data_loss(f"a chunk of activation {index}, of {len(self._infos)} announced")
        info = self._infos[index]
        if begin != self._received[index] or end > info.byte_count:
            raise data_loss(f"{info.name}: bytes {begin} to {end} came after {self._received[index]}")
        if chunk.HasField("crc32") and zlib.crc32(chunk.data) != chunk.crc32:
            raise data_loss(f"{info.name}: the chunk at byte {begin} was damaged on its way")
        self._views[index][begin:end] = chunk.data
        self._received[index] = end

    def finish(self) -> dict[str, Array]:
        """The arrays by name. Raises ServerError (DATA_LOSS) where bytes are missing."""
        for info, received in zip(self._infos, self._received):
            if received != info.byte_count:
                raise data_loss(f"{info.name}: {received} of {info.byte_count} bytes came")
        return {info.name: _to_float32(array, info.data_type) for info, array in zip(self._infos, self._arrays)}
