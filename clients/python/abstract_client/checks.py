"""Checks of numbers that name the argument at fault."""

from __future__ import annotations

import math
from typing import Any

_LARGEST = {32: (1 << 32) - 1, 64: (1 << 64) - 1}


def whole_number(value: Any, argument: str, least: int = 0, most: int = _LARGEST[32]) -> int:
    """`value`, where it is a whole number in [least, most]. Raises ValueError."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(f"{argument}: {value!r} is no whole number")
    if not least <= value.__index__() <= most:
        raise ValueError(f"{argument}: {value} is not in [{least}, {most}]")
    return int(value)


def optional_whole_number(value: Any, argument: str, least: int = 0, most: int = _LARGEST[32]) -> int | None:
    """The same; None stays None."""
    return None if value is None else whole_number(value, argument, least, most)


def seed_number(value: Any, argument: str = "seed") -> int:
    """A whole number in [0, 2^64)."""
    return whole_number(value, argument, 0, _LARGEST[64])


def finite_number(value: Any, argument: str) -> float:
    """`value`, where it is a finite real number. Raises ValueError."""
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise ValueError(f"{argument}: {value!r} is no number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{argument}: {value} is not finite")
    return number
