"""Parts of messages: counts with their noun, and the name that was probably meant; and JSON of unknown origin."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any

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


def parse_object(text: str | bytes, what: str = "it") -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        text: of any content.
        what: name of the document, for messages.

    Raises:
        ValueError: not JSON, nested too deep, or another value.

    >>> parse_object('{"shape": [4, 8, 8]}')
    {'shape': [4, 8, 8]}
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{what} is not JSON: {error}") from error
    except RecursionError:
        raise ValueError(f"{what} is nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError(f"{what} should be a JSON object, and is of type {type(value).__name__}")
    return value
