"""Law 1: blocks leave no seams, whatever the block, the workers and the cluster."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import volseg
from tests.makers import blobs, make_model, make_volume, stored, whole_pass
from volseg.blocks import BlockGrid, Tiling
from volseg.cluster import Quiet
from volseg.errors import GridError
from volseg.inference import Engine, open_predictor
from volseg.models import read_card
from volseg.models.model import load_model_file
from volseg.pipeline import Journey, Member, Request, plan_run, process_block
from volseg.prediction import execute, prepare
from volseg.runfiles import PredictConfig
from volseg.storage import open_volume, volume_statistics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "fusionnet": ("fusionnet", {"width": 4, "depth": 4}),
    "unet-padded": ("unet", {"width": 4, "depth": 4, "padded": True, "batch_norm": True}),
    "unet-unpadded": ("unet", {"width": 4, "depth": 4}),
}
SHAPE = (3, 70, 131)
"""A multiple of nothing, and smaller than a FusionNet's reach of 245."""
BLOCKS = [(1, 32, 48), (2, 64, 64), (3, 80, 144)]


@pytest.fixture(scope="module", params=list(NETWORKS))
def model_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, arguments = NETWORKS[request.param]
    return make_model(tmp_path_factory.mktemp("model") / f"{request.param}.safetensors", kind, arguments)


@pytest.fixture(scope="module")
def raw_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_volume(tmp_path_factory.mktemp("raw") / "raw.zarr", SHAPE)


@pytest.fixture(scope="module")
def truth(model_file: Path, raw_path: Path) -> np.ndarray:
    return whole_pass(load_model_file(model_file), stored(raw_path))


class Keep:
    """A sink that keeps probabilities as they come, before they become bytes."""

    def __init__(self, predict: Any) -> None:
        self.whole = np.full(SHAPE, np.nan, np.float32)
        self._predict = predict

    def __call__(self, normalized: np.ndarray, write_box: Any) -> Iterator[np.ndarray]:
        for made in self._predict(normalized, write_box):
            self.whole[write_box.slices] = made[0]
            yield made

    def write(self, box: Any, volumes: Any) -> str:
        return ""


def in_blocks(
    model_file: Path, raw_path: Path, block: tuple[int, int, int], parts: int = 0, batch: int = 1
) -> np.ndarray:
    """Probabilities of the whole volume, block by block, in float32."""
    volume, header = open_volume(str(raw_path)), read_card(model_file)
    plan = plan_run(volume.shape, volume.chunk, (header.card.footprint,), Request(block=block))
    tiling = list(itertools.islice(plan.tilings(), parts + 1))[-1]
    predict = open_predictor(str(model_file), header.digest, tiling, Engine("cpu", "float32", batch, 1))
    keep = Keep(predict)
    statistics = volume_statistics(volume, header.card.normalization)
    journey = Journey(plan.grid, (Member(tiling, statistics, keep),), volume, keep)
    for number in plan.grid.numbers():
        process_block(number, journey)
    return keep.whole


@pytest.mark.parametrize("block", BLOCKS)
def test_any_blocking_equals_one_pass_over_the_whole_mirrored_volume(model_file, raw_path, truth, block) -> None:
    np.testing.assert_allclose(in_blocks(model_file, raw_path, block), truth, rtol=0, atol=1e-5)


def test_several_tiles_a_block_and_several_tiles_a_batch_change_nothing(model_file, raw_path, truth) -> None:
    made = in_blocks(model_file, raw_path, (2, 64, 128), parts=2, batch=3)
    np.testing.assert_allclose(made, truth, rtol=0, atol=1e-5)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(("cluster", "workers"), [("serial", None), ("local", 1), ("local", 2)])
def test_any_cluster_writes_the_whole_pass(model_file, raw_path, truth, tmp_path, cluster, workers, block) -> None:
    summary = volseg.predict(
        str(raw_path), str(tmp_path / "p.zarr"), model=str(model_file), block=block, precision="float32", halo="exact",
        cluster=cluster, workers=workers,
    )  # fmt: skip
    assert not summary.failed
    # A byte is the nearest to its probability, so being off by at most 1e-5 before rounding shows as half a step more.
    assert np.abs(stored(tmp_path / "p.zarr") - truth * 255).max() <= 0.5 + 255 * 1.01e-5


def test_the_lazy_form_equals_the_whole_pass(model_file, raw_path, truth) -> None:
    import dask.array as da

    raw = da.from_array(stored(raw_path), chunks=(2, 33, 50))
    lazy = volseg.membrane_probability(raw, str(model_file))
    assert (lazy.shape, lazy.dtype) == (SHAPE, np.float32)
    np.testing.assert_allclose(lazy.compute(), truth, rtol=0, atol=1e-5)


def test_a_halo_far_below_the_reach_does_show(model_file, raw_path, truth) -> None:
    """Else the tests above would pass with any halo."""
    volume, header = open_volume(str(raw_path)), read_card(model_file)
    footprint = header.card.footprint
    if not footprint.padded:
        with pytest.raises(GridError, match="below the margin"):
            Tiling(footprint, (1, 32, 32), (0, 0, 0))
        return
    tiling = Tiling(footprint, (1, 32, 32), (0, 0, 0))
    keep = Keep(open_predictor(str(model_file), header.digest, tiling, Engine("cpu", "float32", 1, 1)))
    grid = BlockGrid.over(SHAPE, (1, 32, 32), (1, 32, 32))
    statistics = volume_statistics(volume, header.card.normalization)
    journey = Journey(grid, (Member(tiling, statistics, keep),), volume, keep)
    for number in grid.numbers():
        process_block(number, journey)
    assert np.abs(keep.whole - truth).max() > 1e-3


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_within_one_record_bytes_are_equal(raw_path: Path, small_model: Path, tmp_path: Path, precision: str) -> None:
    """Other workers, other order, same record: the same bytes, shard files and all."""
    results: list[dict[Path, bytes]] = []
    for run, (cluster, workers, backwards) in enumerate(
        [("local", 2, False), ("local", 1, True), ("serial", None, True)]
    ):
        target = tmp_path / f"{run}.zarr"
        config = PredictConfig(
            source=str(raw_path), target=str(target), model=str(small_model), block=(1, 32, 32), precision=precision,
            cluster=cluster, workers=workers, resume=run > 0,
        )  # fmt: skip
        if run:
            freeze_like(tmp_path / "0.zarr", target)
        prepared = prepare(config)
        numbers = list(prepared.plan.grid.numbers())
        summary = execute(prepared, Quiet(), reversed(numbers) if backwards else numbers)
        assert summary.done == len(numbers)
        results.append({p.relative_to(target): p.read_bytes() for p in (target / "0" / "c").rglob("*") if p.is_file()})
    assert results[0] == results[1] == results[2]
    assert len(results[0]) == 3 * 3 * 5


def freeze_like(first: Path, target: Path) -> None:
    """Begin another target under the record of the first."""
    from volseg.storage import create_target, read_record

    record = read_record(first)
    create_target(target, record, record.source.voxel_nm or (1.0, 1.0, 1.0))


def test_statistics_and_not_the_block_decide_the_input(raw_path: Path, small_model: Path) -> None:
    """Law 3: the same voxels with other constants give another result; with the same constants, the same."""
    volume, header = open_volume(str(raw_path)), read_card(small_model)
    plan = plan_run(volume.shape, volume.chunk, (header.card.footprint,), Request(block=(3, 64, 64)))
    tiling = next(plan.tilings())
    keep = Keep(open_predictor(str(small_model), header.digest, tiling, Engine("cpu", "float32", 1, 1)))
    journey = Journey(plan.grid, (Member(tiling, ((128.0, 60.0),), keep),), volume, keep)
    process_block(0, journey)
    first = keep.whole.copy()
    process_block(0, replace(journey, members=(Member(tiling, ((90.0, 30.0),), keep),)))
    assert np.nanmax(np.abs(keep.whole - first)) > 1e-3


def test_batch_norm_uses_the_trainings_statistics(small_model: Path) -> None:
    """Law 3: a tile's neighbours in its batch do not colour it."""
    header = read_card(small_model)
    tiling = Tiling(header.card.footprint, (1, 32, 32), header.card.footprint.exact_halo())
    alone, together = (
        open_predictor(str(small_model), header.digest, tiling, Engine("cpu", "float32", batch, 1)) for batch in (1, 4)
    )
    from volseg.blocks import Box

    write_box = Box((0, 0, 0), (4, 32, 32))
    raw = blobs(tiling.read_box(write_box).shape).astype(np.float32) / np.float32(128) - np.float32(1)
    raw[1:] *= np.float32(7)
    np.testing.assert_allclose(next(alone(raw, write_box)), next(together(raw, write_box)), atol=1e-5)
