"""A short form of the campaign of leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults import leases

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_killed_and_stopped_drivers_and_late_writes_leave_one_map(tmp_path: Path) -> None:
    assert leases.campaign(seed=10, rounds=4, folder=tmp_path).failures == []
