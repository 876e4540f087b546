"""Rounding whole numbers to multiples."""

from __future__ import annotations


def ceil_to(value: int, step: int) -> int:
    """Round up to a multiple of `step`.

    >>> [ceil_to(v, 16) for v in (-1, 0, 1, 16, 230)]
    [0, 0, 16, 16, 240]
    """
    return -(-value // step) * step


def floor_to(value: int, step: int) -> int:
    """Round down to a multiple of `step`.

    >>> [floor_to(v, 16) for v in (-1, 0, 15, 16)]
    [-16, 0, 0, 16]
    """
    return value // step * step
