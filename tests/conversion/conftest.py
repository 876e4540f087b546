"""Small volumes, in several blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from volseg.conversion import plan

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; blocks are single shards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "_LEAST_BYTES", 1)
    return tmp_path
