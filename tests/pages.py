"""Helpers for tests of generated pages and pictures."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

MEASURED_ON: dict[str, Any] = {
    "date": "2026-11-21T12:00:00+00:00",
    "machine": {"processor": "a processor", "cores": 2, "system": "Linux"},
}


def svg_texts(picture: Path) -> set[str]:
    """Text elements of an SVG."""
    return {text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", picture.read_text())}
