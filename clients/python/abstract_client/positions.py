"""Sets of prompt positions, with the names that a chat template gives some of them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any, Union

from abstract_client.protos import hook_pb2

_LARGEST = (1 << 31) - 1


class NamedPosition(Enum):
    """Positions that are named by what stands there.

    LAST: the prompt's last. LAST_INSTRUCTION: the last token of the last user message; chats only. TEMPLATE_TAIL: every
    position after that (for Llama 3 five); chats only.
    """

    LAST = hook_pb2.NAMED_POSITION_LAST
    LAST_INSTRUCTION = hook_pb2.NAMED_POSITION_LAST_INSTRUCTION
    TEMPLATE_TAIL = hook_pb2.NAMED_POSITION_TEMPLATE_TAIL


LAST = NamedPosition.LAST
LAST_INSTRUCTION = NamedPosition.LAST_INSTRUCTION
TEMPLATE_TAIL = NamedPosition.TEMPLATE_TAIL
# Where a chat model decides whether to refuse: what the study patches.
DECISION = (LAST_INSTRUCTION, TEMPLATE_TAIL)

PositionItem = Union[int, slice, NamedPosition]
Positions = Union[PositionItem, Iterable[PositionItem], None]


def position_selector(positions: Positions, argument: str = "positions") -> hook_pb2.PositionSelector | None:
    """The selector of positions: an index, a slice, a named position, or several; None selects all, and makes None.

    Negative indices count from the prompt's end. An empty list is an error, since on the wire nothing means all.
    """
    if positions is None:
        return None
    items = [positions] if _is_item(positions) else list(positions)  # type: ignore[arg-type]
    if not items:
        raise ValueError(f"{argument}: empty; None selects all")
    selector = hook_pb2.PositionSelector()
    for item in items:
        if isinstance(item, NamedPosition):
            selector.named.append(item.value)
        elif isinstance(item, slice):
            _add_range(selector, item, argument)
        else:
            selector.indices.append(_index(item, argument))
    return selector


def _is_item(value: Any) -> bool:
    return isinstance(value, (slice, NamedPosition, str)) or not isinstance(value, Iterable)


def _index(value: Any, argument: str) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(f"{argument}: {value!r} is no index, slice or named position")
    index = value.__index__()
    if not -_LARGEST <= index <= _LARGEST:
        raise ValueError(f"{argument}: {index} is out of range")
    return int(index)


def _add_range(selector: hook_pb2.PositionSelector, item: slice, argument: str) -> None:
    if item.step not in (None, 1):
        raise ValueError(f"{argument}: a slice has no step here")
    added = selector.ranges.add()
    if item.start is not None:
        added.start = _index(item.start, argument)
    if item.stop is not None:
        added.end = _index(item.stop, argument)


def indices(values: Any, argument: str) -> list[int]:
    """Heads, dims or layers: one number, several, or a slice with an end; None selects all, and makes []."""
    if values is None:
        return []
    if isinstance(values, slice):
        if values.stop is None or (values.start or 0) < 0 or values.stop < 0:
            raise ValueError(f"{argument}: a slice here needs an end, and bounds of at least 0")
        values = range(values.start or 0, values.stop, values.step or 1)
    items = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    if not items:
        raise ValueError(f"{argument}: empty; None selects all")
    for item in items:
        if isinstance(item, bool) or not hasattr(item, "__index__") or not 0 <= item.__index__() <= _LARGEST:
            raise ValueError(f"{argument}: {item!r} is no index of at least 0")
    return [int(item) for item in items]
