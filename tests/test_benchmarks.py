"""Peers predict the same map as volseg; rates, tables and pictures show what was recorded."""

from __future__ import annotations

import copy
import itertools
import json
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import gpu, limit, memory
from benchmarks import record as recording
from benchmarks.adapters import (
    IMPORT_ERRORS,
    PEERS,
    CountingNetwork,
    PeerSettings,
    PredictSections,
    dask_overlap,
    load_peer,
    plain_window,
    window_starts,
)
from benchmarks.cases import Case
from benchmarks.charts import draw_gpu
from benchmarks.forward import median_seconds, optimized_network, zero_tile
from benchmarks.peer_tables import gpu_table
from benchmarks.peers import Bench, measure_in_turns
from tests.pages import MEASURED_ON, svg_texts
from volseg.blocks import Tiling
from volseg.cluster import SerialExecutor
from volseg.inference.hardware import instruction_set
from volseg.models.model import Model, load_model_file
from volseg.ops import to_uint8
from volseg.prediction import worker
from volseg.prediction.worker import RunRef, compute_block
from volseg.storage import VolumeRef, read_record
from volseg.storage.create import create_volume
from volseg.storage.place import Place
from volseg.testing.factories import (
    blobs,
    float32_tolerance,
    make_model,
    make_volume,
    read_volume,
    rounding_tolerance,
    whole_pass,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
SETTINGS = PeerSettings(window=80, block=64, halo=24, threads=1)
REACH = 21


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "net.safetensors", arguments={"width": 4, "depth": 1})


@pytest.fixture(scope="module")
def model(model_file: Path) -> Model:
    return load_model_file(model_file)


@pytest.fixture(scope="module")
def raw() -> NDArray[np.uint8]:
    return blobs((2, 128, 128))


@pytest.fixture(scope="module")
def truth(model: Model, raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    return whole_pass(model, raw).astype(np.float32)


def away_from_windows(side: int) -> NDArray[np.bool_]:
    """Pixels of a section further than the reach from the borders of all windows."""
    inside = np.ones(side, bool)
    for start in window_starts(side, SETTINGS):
        for border in (start, start + SETTINGS.window):
            inside[max(0, border - REACH) : border + REACH] = False
    return inside[:, None] & inside[None, :]


def assert_same_map(predict: PredictSections, model: Model, raw: NDArray[np.uint8], truth: NDArray[np.float32]) -> None:
    output = predict(model.normalize(raw))
    assert output.shape == raw.shape
    pixels = away_from_windows(raw.shape[1])
    assert pixels.sum() > 100
    tolerance = float32_tolerance(truth, model, raw)
    np.testing.assert_allclose(output[:, pixels], truth[:, pixels], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", PEERS)
def test_peers_predict_the_map_of_volseg(
    name: str, model: Model, raw: NDArray[np.uint8], truth: NDArray[np.float32]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peers warn of each other's packages
        try:
            predict, network = load_peer(name, model, SETTINGS)
        except IMPORT_ERRORS as error:
            pytest.skip(f"{name}: {error}")
        if "bfloat16" in name:
            output = predict(model.normalize(raw))
            np.testing.assert_allclose(output[:, 64, 64], truth[:, 64, 64], atol=0.05)
        else:
            assert_same_map(predict, model, raw, truth)
    assert sum(network.voxels) >= raw.size


def test_plain_window_predicts_the_map_of_volseg(
    model: Model, raw: NDArray[np.uint8], truth: NDArray[np.float32]
) -> None:
    assert_same_map(plain_window(CountingNetwork(model, 1), SETTINGS), model, raw, truth)


def test_a_round_of_volseg_writes_its_own_sections_of_the_map(
    model_file: Path, raw: NDArray[np.uint8], truth: NDArray[np.float32], tmp_path: Path
) -> None:
    """A round is two sections of warm-up and those that are timed."""
    sections = np.concatenate([raw, raw, raw])
    source = make_volume(tmp_path / "raw.zarr", sections.shape, voxels=sections, chunk=(1, 128, 128))
    bench = Bench(source, model_file, tmp_path, SerialExecutor(), "serial", sections=1)
    rate, _ = bench.volseg("volseg", halo="exact", precision="float32")
    volumes = []
    for _ in range(2):
        assert rate() > 0
        volumes.append(read_volume(tmp_path / "volseg.zarr"))
    assert volumes[0][:3].all(axis=0).any()
    assert not volumes[0][3:].any()
    assert np.abs(volumes[1].astype(int) - np.concatenate([to_uint8(truth)] * 3)).max() <= 1
    assert bench.computed["volseg"] == pytest.approx((128 + 2 * 22) ** 2 / 128**2, abs=1e-3)


def test_a_worker_opens_a_run_before_blocks_are_timed(
    model_file: Path, raw: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached: dict[Any, Any] = {}
    monkeypatch.setattr(worker, "_pipelines", cached)
    sections = np.concatenate([raw, raw])
    source = make_volume(tmp_path / "raw.zarr", sections.shape, voxels=sections, chunk=(1, 128, 128))
    rate, _ = Bench(source, model_file, tmp_path, SerialExecutor(), "serial", sections=1).volseg("volseg", halo="exact")
    assert not cached
    rate()
    assert len(cached) == 1


def test_input_voxels_are_counted(model: Model, raw: NDArray[np.uint8]) -> None:
    network = CountingNetwork(model, 1)
    dask_overlap(network, SETTINGS)(model.normalize(raw))
    assert sum(network.voxels) == 2 * 4 * (64 + 2 * 24) ** 2


@given(st.integers(16, 4000), st.sampled_from([16, 64, 512]), st.sampled_from([0.0, 0.25, 0.5]))
def test_windows_cover_an_axis_and_stay_inside(length: int, window: int, overlap: float) -> None:
    length = max(length, window)
    starts = window_starts(length, PeerSettings(window=window, overlap=overlap))
    assert (starts[0], starts[-1] + window) == (0, length)
    assert all(0 < b - a <= window * (1 - overlap) for a, b in itertools.pairwise(starts))


def test_every_method_runs_once_per_round_in_rotating_order() -> None:
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return 1.0

    rates = measure_in_turns({name: partial(run, name) for name in "abc"}, seconds=60, max_rounds=3)
    assert ["".join(order[at : at + 3]) for at in (0, 3, 6)] == ["abc", "bca", "cab"]
    assert {name: len(rounds) for name, rounds in rates.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_result_states_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(recording, "RESULTS", tmp_path)
    result = json.loads(recording.record("some", {"a": 1}).read_text())
    assert set(result) == {"benchmark", "date", "commit", "machine", "figures"}
    assert set(result["machine"]) == {"processor", "instruction_set", "cores", "system"}
    assert result["machine"]["instruction_set"] == instruction_set()


def test_there_is_at_least_one_round() -> None:
    assert measure_in_turns({"a": lambda: 1.0}, seconds=0) == {"a": [1.0]}


def test_the_timed_forward_pass_is_the_network(model: Model) -> None:
    tiling = Tiling(model.card.footprint, (1, 64, 64), (0, 24, 24))
    tile = zero_tile(tiling, "float32") + torch.linspace(-1, 1, 112)
    with torch.inference_mode():
        output, whole = optimized_network(model, "float32", tiling)(tile), model.network(tile)
        exact = copy.deepcopy(model.network).double()(tile.double())
    around = (output.shape[-1] - 64) // 2  # computed besides the core
    assert 0 <= around < 24
    core = output[:, :, around : around + 64, around : around + 64].double()
    inner = (..., slice(24, -24), slice(24, -24))
    torch.testing.assert_close(core, exact[inner], rtol=0, atol=rounding_tolerance(whole[inner], exact[inner]))
    assert median_seconds(lambda x: x + 1, tile, 1, min_seconds=0.001) > 0


def test_forward_passes_take_a_part_of_a_blocks_time(model_file: Path, raw: NDArray[np.uint8], tmp_path: Path) -> None:
    source = make_volume(tmp_path / "raw.zarr", (2, 128, 128), voxels=raw, chunk=(1, 128, 128))
    bench = Bench(source, model_file, tmp_path, SerialExecutor(), "serial", sections=2)
    summary = bench.predict(tmp_path / "membrane.zarr", range(2), halo=(0, 24, 24))
    digest = read_record(tmp_path / "membrane.zarr").digest
    reference = RunRef(summary.target, digest, VolumeRef(str(source)), (str(model_file),))
    before = read_volume(tmp_path / "membrane.zarr")
    seconds, forward_seconds, voxels = limit.run_timed(
        SerialExecutor(), range(2), partial(compute_block, reference=reference)
    )
    assert 0 < forward_seconds < seconds
    assert voxels == raw.size
    np.testing.assert_array_equal(read_volume(tmp_path / "membrane.zarr"), before)


def test_plain_copy_equals_the_volume(tmp_path: Path) -> None:
    shape, block = (3, 40, 50), (2, 32, 32)
    source = make_volume(tmp_path / "raw.zarr", shape, chunk=(1, 16, 16))
    create_volume(
        tmp_path / "copy.zarr", shape=shape, shard=block, chunk=block, dtype="uint8", place=Place.of_nm((30, 6, 6))
    )
    assert limit.plain_copy(source, tmp_path / "copy.zarr", block) > 0
    np.testing.assert_array_equal(read_volume(tmp_path / "copy.zarr"), read_volume(source))


@pytest.mark.slow
def test_peak_memory_of_a_worker_is_measured_and_predicted(raw: NDArray[np.uint8], tmp_path: Path) -> None:
    source = make_volume(tmp_path / "raw.zarr", (2, 128, 128), voxels=raw, chunk=(1, 128, 128))
    case = Case("tiny", "fusionnet", {"width": 4, "depth": 2}, precision="float32")
    peaks = memory.measure_peaks(case, source, tmp_path, rounds=1, block=(1, 128, 128))
    assert peaks["precision"] == "float32"
    # A process that has loaded torch, and little else.
    assert all(100 < peak < 1000 for name in ("predicted", "measured") for peak in peaks[name])
    assert len(peaks["predicted"]) == len(peaks["measured"]) == 1


def test_the_gpu_benchmark_runs_on_a_cpu(tmp_path: Path) -> None:
    scale = gpu.Scale(
        device="cpu", arguments={"width": 2, "depth": 1}, matrix=64,
        sides=(32,), batches=(1, 2), precisions=("float32",), shape=(2, 64, 64),
        sections=1, window=64, rounds=1, link=1 << 16,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MONAI, if it is installed
        figures = gpu.measure(tmp_path, scale, cluster="serial")
    assert [(row["side"], row["batch"]) for row in figures["forward"]] == [(32, 1), (32, 2)]
    assert all(row["kvoxel_s"] > 0 for row in figures["forward"])
    assert figures["link"]["bytes_in"] >= 4
    table = gpu_table({"figures": figures, **MEASURED_ON})
    assert "32 x 32" in table
    assert "volseg, halo 64" in table
    draw_gpu(tmp_path / "gpu.svg", {"figures": figures})
    assert "float32, batch 2" in svg_texts(tmp_path / "gpu.svg")


def test_the_gpu_benchmark_is_refused_in_one_line_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"^benchmarks.gpu needs a CUDA device[^\n]*make bench[^\n]*$"):
        gpu.main()
