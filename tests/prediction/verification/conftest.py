"""A finished target, to be damaged."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from volseg.testing.targets import make_target, noise_record

if TYPE_CHECKING:
    from pathlib import Path

LAST = 17
"""Number of the block that is empty."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    record = noise_record((3, 40, 70), (1, 16, 32))
    return make_target(tmp_path_factory.mktemp("whole") / "t.zarr", record, empty={LAST}, segments=2)


@pytest.fixture
def target(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "t.zarr")
