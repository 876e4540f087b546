"""Parts of messages: counts with their noun, and the name that was probably meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_CUTOFF = 0.75
"""Similarity of a suggestion; below it, guesses are mostly wrong."""


def counted(number: int, noun: str) -> str:
    """A number and its noun.

    >>> counted(1, "block"), counted(0, "block"), counted(12, "section")
    ('1 block', '0 blocks', '12 sections')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """A hint to put behind an unknown name; empty if no choice is like it.

    >>> did_you_mean("unte", ["fusionnet", "unet"]), did_you_mean("UNet", ["unet"]), did_you_mean("resnet", ["unet"])
    (" (did you mean 'unet'?)", " (did you mean 'unet'?)", '')
    """
    by_lower = {choice.lower(): choice for choice in choices}
    similar = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=_CUTOFF)
    return f" (did you mean {by_lower[similar[0]]!r}?)" if similar else ""
