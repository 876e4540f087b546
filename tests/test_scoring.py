"""Scores of a map of several channels are those of one of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from tests.makers import make_volume, stored
from volseg.blocks import Box
from volseg.cli.main import main
from volseg.errors import SourceError
from volseg.scoring import score
from volseg.storage.target import create_volume

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (3, 16, 16)


@pytest.fixture
def truth(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Cell 1, membrane 0."""
    return make_volume(tmp_path / "truth.zarr", SHAPE, voxels=rng.integers(0, 2, SHAPE, dtype=np.uint8))


def a_map(path: Path, truth: Path, names: tuple[str, str]) -> Path:
    """Two channels: cell as it is, and membrane as it is."""
    target = create_volume(
        path, shape=SHAPE, shard=SHAPE, chunk=SHAPE, dtype="uint8", voxel_nm=(30, 6, 6), channels=names
    )
    cell = stored(truth) * np.uint8(255)
    target.write(Box.of_shape(SHAPE), np.stack([cell, 255 - cell]))
    return path


def test_the_channel_called_membrane_is_scored_by_itself(tmp_path: Path, truth: Path) -> None:
    path = a_map(tmp_path / "map.zarr", truth, ("cell", "membrane"))
    assert score(str(path), str(truth)).f1 == score(str(path / "0"), str(truth)).f1 == 1
    assert score(str(path), str(truth), channel="cell").f1 == 0


def test_another_channel_is_named(tmp_path: Path, truth: Path) -> None:
    path = a_map(tmp_path / "map.zarr", truth, ("inside", "boundary"))
    with pytest.raises(SourceError, match="inside, boundary"):
        score(str(path), str(truth))
    for channel in ("boundary", "1"):
        done = CliRunner().invoke(main, ["evaluate", str(path), str(truth), "--channel", channel, "--json"])
        assert json.loads(done.output)["f1"] == 1
