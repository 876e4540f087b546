"""Law 7: a worker's peak is predicted before the run, holds, and does not grow with the volume."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import volseg
import volseg.inference.choose as choosing
from tests.makers import make_model, make_volume, random_network
from volseg.blocks import BlockGrid, Tiling
from volseg.errors import MemoryPlanError
from volseg.inference import Load
from volseg.inference.memory import activation_bytes, largest_that_fits, plan_memory
from volseg.models.footprint import network_footprint

if TYPE_CHECKING:
    from pathlib import Path

MEASURE = """
import json, sys, torch
from volseg.blocks import BlockGrid, Tiling
from volseg.inference import Engine, Load, open_predictor
from volseg.inference.memory import plan_memory
from volseg.models import read_card
from volseg.models.model import load_model_file
from volseg.journey import Volumes
from volseg.pipeline import Journey, Member, process_block
from volseg.storage import open_volume, open_target
from volseg.storage.target import create_volume
from pathlib import Path
import distributed

model, raw, out, depth = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
header, volume = read_card(model), open_volume(raw)
block = (depth, 256, 256)
grid = BlockGrid.over(volume.shape, block, block)
tiling = Tiling(header.card.footprint, (1, 256, 256), header.card.footprint.exact_halo())
create_volume(out, shape=volume.shape, shard=block, chunk=(1, 64, 64), dtype="uint8", voxel_nm=(30.0, 6.0, 6.0))
plan = plan_memory(load_model_file(model).network, grid, tiling, Load(1, "float32", 1, 1, "cpu"))
predict = open_predictor(model, header.digest, tiling, Engine("cpu", "float32", 1, 1))
journey = Journey(grid, (Member(tiling, ((128.0, 60.0),), predict),), volume, Volumes((open_target(out),)))
for number in grid.numbers():
    process_block(number, journey)
# getrusage would count what the process was before it became this one: the tests' own memory.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps([plan.host_peak, int(peak.split()[1]) * 1024]))
"""


def peak(model: Path, raw: Path, out: Path, depth: int) -> tuple[int, int]:
    """Predicted and measured peak of a process that does all blocks of a volume, in bytes."""
    command = [sys.executable, "-c", MEASURE, str(model), str(raw), str(out), str(depth)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    predicted, measured = json.loads(done.stdout)
    return predicted, measured


def test_the_predicted_peak_holds_and_does_not_grow_with_the_volume(tmp_path: Path) -> None:
    model = make_model(tmp_path / "wide.safetensors", "fusionnet", {"width": 16, "depth": 3})
    small = make_volume(tmp_path / "small.zarr", (6, 256, 512), chunk=(1, 256, 256))
    large = make_volume(tmp_path / "large.zarr", (18, 256, 512), chunk=(1, 256, 256))
    predicted, measured = peak(model, small, tmp_path / "a.zarr", 2)
    again, larger = peak(model, large, tmp_path / "b.zarr", 2)
    assert predicted == again
    assert measured < predicted
    assert larger < predicted
    assert larger < measured * 1.1
    assert predicted < measured * 2.5


def test_the_plan_follows_block_tile_width_and_slots_not_the_volume() -> None:
    network = random_network("fusionnet", {"width": 4, "depth": 2})
    footprint = network_footprint(network)

    def plan(
        shape: Any = (64, 4096, 4096), block: Any = (8, 256, 256), core: Any = (1, 128, 128), slots: int = 1
    ) -> int:
        grid = BlockGrid.over(shape, block, block)
        tiling = Tiling(footprint, core, footprint.exact_halo())
        return plan_memory(network, grid, tiling, Load(1, "float32", 1, slots, "cpu")).host_peak

    assert plan(shape=(640, 40_960, 40_960)) == plan()
    assert plan(block=(16, 256, 256)) > plan()
    assert plan(core=(1, 256, 256)) > plan()
    assert plan(slots=2) > plan()


def test_activations_are_those_that_are_alive_at_once() -> None:
    network = random_network("unet", {"width": 4, "depth": 1, "padded": True})
    level = 4 * 64 * 64 * 4
    # At full resolution: skip, joined maps (twice as wide) and a convolution's input and output; no more than six maps.
    assert 3 * level <= activation_bytes(network, (1, 64, 64), 1, 4) <= 6 * level
    assert activation_bytes(network, (1, 64, 64), 2, 4) == 2 * activation_bytes(network, (1, 64, 64), 1, 4)
    assert activation_bytes(network, (1, 64, 64), 1, 2) * 2 == activation_bytes(network, (1, 64, 64), 1, 4)


def test_the_largest_tile_that_fits_is_taken() -> None:
    network = random_network("fusionnet", {"width": 4, "depth": 2})
    footprint = network_footprint(network)
    grid = BlockGrid.over((4, 1024, 1024), (4, 1024, 1024), (4, 1024, 1024))
    tilings = [Tiling(footprint, (1, side, side), footprint.exact_halo()) for side in (1024, 512, 256)]
    plans = [(t, plan_memory(network, grid, t, Load(1, "float32", 1, 1, "cpu"))) for t in tilings]
    peaks = [plan.host_peak for _, plan in plans]
    assert peaks == sorted(peaks, reverse=True)
    for expected, allowed in zip(tilings, peaks, strict=True):
        assert largest_that_fits(plans, int(allowed / 0.85) + 1, 0)[0] == expected
    with pytest.raises(MemoryPlanError, match=r"a worker would need .* GiB.*smaller --block, or fewer --workers"):
        largest_that_fits(plans, peaks[-1] // 2, 0)


def test_a_run_that_does_not_fit_is_refused_before_anything_is_written(
    raw: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = largest_that_fits
    monkeypatch.setattr(choosing, "largest_that_fits", lambda plans, host, device: choose(plans, 1 << 28, device))
    with pytest.raises(MemoryPlanError, match=r"0\.\d+ GiB, and 0\.21 GiB may be planned for"):
        volseg.predict(str(raw), str(tmp_path / "t.zarr"), model=str(small_model), cluster="serial")
    assert not (tmp_path / "t.zarr").exists()
