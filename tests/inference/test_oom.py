"""After a device ran out of memory, smaller passes give the same map."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import volseg
import volseg.prediction.worker as working
from volseg.blocks import Box, Footprint, Tiling
from volseg.errors import MemoryPlanError
from volseg.inference import Engine
from volseg.inference.oom import reduce_tiling, split_core
from volseg.inference.optimize.optimize import optimize
from volseg.inference.tiled_predictor import TiledPredictor
from volseg.models.footprint import network_footprint
from volseg.ops import Grey
from volseg.pipeline import process_block
from volseg.storage import VolumeRef
from volseg.testing.factories import blobs, random_network, rounding_tolerance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from volseg.pipeline import BlockPipeline, BlockReport

BOX = Box((0, 0, 0), (3, 48, 40))
CPU_MESSAGE = (
    "[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
)


def predictor(batch: int, side: int = 48, orientations: str = "one") -> TiledPredictor:
    network = random_network("fusionnet", {"width": 2, "depth": 1})
    footprint = network_footprint(network)
    tiling = Tiling(footprint, (1, side, side), footprint.exact_halo())
    engine = Engine("cpu", "float32", batch, 1, orientations)
    return TiledPredictor(optimize(network, "cpu", "float32"), torch.sigmoid, tiling, engine)


def small_device(
    monkeypatch: pytest.MonkeyPatch, predict: TiledPredictor, tiles: int, side: int, error: Exception
) -> list[tuple[int, ...]]:
    """Let passes fail above a number of tiles or a side; returns the shapes of all passes."""
    shapes: list[tuple[int, ...]] = []
    forward: Callable = predict._forward

    def limited(cores, config, block):
        shapes.append((len(cores), *config.tiling.input_shape))
        if len(cores) > tiles or config.tiling.input_shape[-1] > side:
            raise error
        return forward(cores, config, block)

    monkeypatch.setattr(predict, "_forward", limited)
    return shapes


def block(predict: TiledPredictor) -> np.ndarray:
    shape = predict._tiling.read_box(BOX).shape
    return next(predict(Grey.of(blobs(shape), ((120.0, 60.0),)), BOX)).probability


@pytest.fixture(scope="module")
def tolerance() -> float:
    """What rounding may make of a probability of the network, alone or as a mean over orientations."""
    network = random_network("fusionnet", {"width": 2, "depth": 1})
    tiles = torch.from_numpy((blobs((3, 96, 96)).astype(np.float32) - 120) / 60)[:, None]
    with torch.inference_mode():
        return rounding_tolerance(network(tiles).sigmoid(), network.double()(tiles.double()).sigmoid())


@pytest.mark.parametrize(
    "error", [RuntimeError(CPU_MESSAGE), torch.OutOfMemoryError("CUDA out of memory."), MemoryError("std::bad_alloc")]
)
def test_the_batch_is_halved_once_and_stays_so(
    monkeypatch: pytest.MonkeyPatch, error: Exception, tolerance: float
) -> None:
    predict = predictor(batch=3)
    expected = block(predict)
    shapes = small_device(monkeypatch, predict, 1, 999, error)
    with pytest.warns(
        UserWarning, match="cpu ran out of memory: .* tiles of 1,48,48 in batches of 1; a smaller --tile"
    ):
        result = block(predict)
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)
    assert [shape[0] for shape in shapes] == [3, 1, 1, 1]
    np.testing.assert_array_equal(block(predict), result)  # a second warning would fail here
    assert [shape[0] for shape in shapes[4:]] == [1, 1, 1]


@pytest.mark.parametrize("orientations", ["one", "flips"])
def test_then_tiles_are_halved_and_the_map_stays_the_same(
    monkeypatch: pytest.MonkeyPatch, orientations: str, tolerance: float
) -> None:
    predict = predictor(batch=1, orientations=orientations)
    expected = block(predict)
    whole = predict._tiling.input_shape[-1]
    shapes = small_device(monkeypatch, predict, 1, whole - 1, RuntimeError(CPU_MESSAGE))
    with pytest.warns(UserWarning, match="tiles of 1,24,24 in batches of 1"):
        result = block(predict)
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)
    # Two passes were in flight. Halves of 24 voxels cover a width of 40 in two.
    assert [shape[-1] for shape in shapes] == [whole] * 2 + [whole - 24] * 12


def test_a_tile_that_cannot_be_halved_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    predict = predictor(batch=1, side=4)
    side = predict._tiling.input_shape[-1]
    small_device(monkeypatch, predict, 0, 0, RuntimeError(CPU_MESSAGE))
    refusal = f"one tile of 1,2,2, 1,{side - 2},{side - 2} with its halo, does not fit the memory left on cpu; give"
    with (
        pytest.warns(UserWarning, match="tiles of 1,2,2 in batches of 1"),
        pytest.raises(MemoryPlanError, match=re.escape(refusal)),
    ):
        block(predict)
    with pytest.raises(MemoryPlanError, match=re.escape(refusal)):
        block(predict)


def test_a_failed_pass_frees_its_activations_before_a_smaller_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations may take tens of GiB: the smaller pass would not fit beside them."""
    predict = predictor(batch=2)
    forward: Callable = predict._forward
    activations: list[weakref.ref[torch.Tensor]] = []

    def limited(cores, config, block):
        assert not any(reference() is not None for reference in activations)
        if len(cores) > 1:
            activation = torch.zeros(9)
            activations.append(weakref.ref(activation))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(cores, config, block)

    monkeypatch.setattr(predict, "_forward", limited)
    gc.disable()  # a reference cycle must not be needed to be collected
    try:
        with pytest.warns(UserWarning, match="batches of 1"):
            block(predict)
    finally:
        gc.enable()
    assert activations


def test_two_failing_passes_in_flight_reduce_the_tiling_once() -> None:
    predict = predictor(batch=4)
    config = predict._config
    with pytest.warns(UserWarning, match="batches of 2"):
        predict._fall_back(config)
    predict._fall_back(config)  # a second warning would fail here
    assert predict._config.batch == 2


def test_other_errors_are_not_treated_as_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    predict = predictor(batch=2)
    shapes = small_device(monkeypatch, predict, 0, 0, RuntimeError("a kernel that does not exist"))
    with pytest.raises(RuntimeError, match="a kernel that does not exist"):
        block(predict)
    assert len(shapes) <= 2  # the second was in flight


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 5))
def test_halves_cover_a_core_on_the_stride_and_within_its_read_box(
    rows: int, columns: int, stride: int, strides_of_halo: int
) -> None:
    halo = strides_of_halo * stride
    footprint = Footprint(
        (0, halo, halo), (0, halo, halo), (1, stride, stride), (0, 0, 0), (1, stride, stride), (0, halo, halo)
    )
    tiling = Tiling(footprint, (2, rows * stride, columns * stride), (0, halo, halo))
    core = Box((4, 12 * stride, 0), (6, (12 + rows) * stride, columns * stride))
    if rows == columns == 1:
        with pytest.raises(MemoryPlanError):
            reduce_tiling(tiling, 1, "cuda")
        return
    half, batch = reduce_tiling(tiling, 1, "cuda")
    parts = list(split_core(core, half.core))
    assert batch == 1
    assert len(parts) == (2 if rows > 1 else 1) * (2 if columns > 1 else 1)
    covered = np.zeros(core.shape, bool)
    for part in parts:
        assert part.shape == half.core
        assert not any(a % s for a, s in zip(part.start, footprint.stride, strict=True))
        assert tiling.input_box(core).contains(half.input_box(part))
        covered[part.relative_to(core.start).slices] = True
    assert covered.all()


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) << 20,) * 2)
from volseg.cli.main import main
main(["predict", "--help"])
"""


@pytest.mark.parametrize("limit", [300, 1000])
def test_a_limit_below_which_libraries_do_not_load_is_refused_in_one_line(limit: int) -> None:
    """At 300 MiB a library panicked and the process hung."""
    command = [sys.executable, "-c", LIMITED, str(limit)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 1
    (line,) = process.stderr.strip().splitlines()
    assert line.startswith(f"Error: `ulimit -v` leaves this process {limit} MiB of address space")


def test_memory_that_runs_out_beside_the_network_is_tried_once_more(
    raw: Path, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in reading, stacking or padding."""
    calls: list[int] = []

    def scarce(number: int, pipeline: BlockPipeline) -> BlockReport:
        calls.append(number)
        if len(calls) == 1:
            raise MemoryError("Unable to allocate 9 GiB for an array")
        return process_block(number, pipeline)

    monkeypatch.setattr(working, "process_block", scarce)
    summary = volseg.predict(str(raw), str(tmp_path / "p.zarr"), model=str(small_model), cluster="serial", halo="exact")
    assert calls[:2] == [0, 0]
    assert not summary.failed

    def never(number: int, reference: working.RunRef) -> BlockReport:
        raise MemoryError("Unable to allocate 9 GiB for an array")

    monkeypatch.setattr(working, "_compute_block", never)
    reference = working.RunRef(summary.target, "", VolumeRef(str(raw)), (str(small_model),))
    with pytest.raises(MemoryPlanError, match="block 3: this worker ran out of main memory twice .*Unable to allocate"):
        working.compute_block(3, reference)
