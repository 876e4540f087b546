"""Fixtures of all training tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the curves, which take half a second; tests/cli draws them."""
    monkeypatch.setattr("volseg.training.logger.save_training_curves", lambda *_: None)
