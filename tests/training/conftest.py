"""What all tests of trainings share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves take half a second to draw; that they are drawn is tested with the whole journey."""
    monkeypatch.setattr("volseg.training.logger.save_curves", lambda *_: None)
