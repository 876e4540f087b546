"""Those who are compared make the same map; ratios, tables and pictures are what was recorded."""

from __future__ import annotations

import itertools
import re
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import gpu, limit
from benchmarks.cases import CASES as MADE
from benchmarks.charts import DOCS, draw_gpu, draw_peers
from benchmarks.comparison import (
    CASES,
    PICTURES,
    gpu_table,
    label,
    limit_table,
    peers_table,
    ratios,
    spread,
    targets_table,
)
from benchmarks.contenders import (
    MISSING,
    PEERS,
    Contender,
    Cut,
    Seen,
    dask_overlap,
    made_ready,
    plain_window,
    versions,
    window_starts,
)
from benchmarks.peers import Bench, by_turns
from benchmarks.record import results
from tests.makers import blobs, make_model, make_volume, stored, whole_pass
from volseg import journey
from volseg.blocks import Tiling
from volseg.cluster import Cluster
from volseg.journey import RunTicket, compute_block
from volseg.models.model import Model, load_model_file
from volseg.ops import to_uint8
from volseg.storage import read_record
from volseg.storage.target import create_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
CUT = Cut(window=80, block=64, halo=24, threads=1)
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
    return whole_pass(model, raw)


def away_from_windows(side: int) -> NDArray[np.bool_]:
    """Places of a section further than the network's reach from the borders of all windows over it."""
    inside = np.ones(side, bool)
    for start in window_starts(side, CUT):
        for border in (start, start + CUT.window):
            inside[max(0, border - REACH) : border + REACH] = False
    return inside[:, None] & inside[None, :]


def agreeing(contender: Contender, model: Model, raw: NDArray[np.uint8], truth: NDArray[np.float32]) -> None:
    made = contender(model.normalize(raw))
    assert made.shape == raw.shape
    places = away_from_windows(raw.shape[1])
    assert places.sum() > 100
    np.testing.assert_allclose(made[:, places], truth[:, places], atol=2e-5)


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_makes_the_map_that_volseg_makes(
    name: str, model: Model, raw: NDArray[np.uint8], truth: NDArray[np.float32]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peers warn of each other's packages
        try:
            contender, seen = made_ready(name, model, CUT)
        except MISSING as error:
            pytest.skip(f"{name}: {error}")
        if "bfloat16" in name:
            made = contender(model.normalize(raw))
            np.testing.assert_allclose(made[:, 64, 64], truth[:, 64, 64], atol=0.05)
        else:
            agreeing(contender, model, raw, truth)
    assert sum(seen.voxels) >= raw.size


def test_the_plain_window_makes_the_same_map(model: Model, raw: NDArray[np.uint8], truth: NDArray[np.float32]) -> None:
    agreeing(plain_window(Seen(model, 1), CUT), model, raw, truth)


def test_what_is_compared_is_the_end_of_volsegs_own_way(
    model_file: Path, raw: NDArray[np.uint8], truth: NDArray[np.float32], tmp_path: Path
) -> None:
    source = make_volume(tmp_path / "raw.zarr", (2, 128, 128), voxels=raw, chunk=(1, 128, 128))
    bench = Bench(source, model_file, tmp_path, Cluster(None), "serial", sections=1)
    rate, _ = bench.volseg("volseg", halo="exact", precision="float32")
    made = []
    for _ in range(2):
        assert rate() > 0
        made.append(stored(tmp_path / "volseg.zarr"))
    assert not made[0][1].any(), "a round does its own sections"
    assert np.abs(made[1].astype(int) - to_uint8(truth)).max() <= 1
    assert bench.computed["volseg"] == pytest.approx((128 + 2 * 22) ** 2 / 128**2, abs=1e-3)


def test_a_worker_opens_a_run_before_its_blocks_are_timed(
    model_file: Path, raw: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[Any, Any] = {}
    monkeypatch.setattr(journey, "_opened", known)
    source = make_volume(tmp_path / "raw.zarr", (2, 128, 128), voxels=raw, chunk=(1, 128, 128))
    rate, _ = Bench(source, model_file, tmp_path, Cluster(None), "serial", sections=1).volseg("volseg", halo="exact")
    assert not known
    rate()
    assert len(known) == 1, "what was opened ahead is what the blocks ask for"


def test_voxels_that_go_in_are_counted(model: Model, raw: NDArray[np.uint8]) -> None:
    seen = Seen(model, 1)
    dask_overlap(seen, CUT)(model.normalize(raw))
    assert sum(seen.voxels) == 2 * 4 * (64 + 2 * 24) ** 2


@given(st.integers(16, 4000), st.sampled_from([16, 64, 512]), st.sampled_from([0.0, 0.25, 0.5]))
def test_windows_cover_an_axis_and_stay_inside(length: int, window: int, overlap: float) -> None:
    length = max(length, window)
    starts = window_starts(length, Cut(window=window, overlap=overlap))
    assert (starts[0], starts[-1] + window) == (0, length)
    assert all(0 < b - a <= window * (1 - overlap) for a, b in itertools.pairwise(starts))


def test_every_contender_has_its_turn_in_every_round_and_none_is_always_first() -> None:
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return 1.0

    rates = by_turns({name: partial(run, name) for name in "abc"}, seconds=60, most=3)
    assert ["".join(order[at : at + 3]) for at in (0, 3, 6)] == ["abc", "bca", "cab"]
    assert {name: len(each) for name, each in rates.items()} == {"a": 3, "b": 3, "c": 3}


def test_there_is_one_round_even_without_time() -> None:
    assert by_turns({"a": lambda: 1.0}, seconds=0) == {"a": [1.0]}


def test_a_forward_pass_is_no_faster_than_nothing(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "LONG", 0.001)
    tiling = Tiling(model.card.footprint, (1, 64, 64), (0, 24, 24))
    assert limit.forward_pass(model, "float32", tiling, 1)() > 0


def test_a_block_is_busy_for_a_part_of_its_time(model_file: Path, raw: NDArray[np.uint8], tmp_path: Path) -> None:
    source = make_volume(tmp_path / "raw.zarr", (2, 128, 128), voxels=raw, chunk=(1, 128, 128))
    bench = Bench(source, model_file, tmp_path, Cluster(None), "serial", sections=2)
    summary = bench.predict(tmp_path / "membrane.zarr", range(2), halo=(0, 24, 24))
    digest = read_record(tmp_path / "membrane.zarr").digest
    ticket = RunTicket(summary.target, digest, str(source), (str(model_file),))
    before = stored(tmp_path / "membrane.zarr")
    seconds, inside, voxels = limit.run_timed(Cluster(None), range(2), partial(compute_block, ticket=ticket))
    assert 0 < inside < seconds
    assert voxels == raw.size
    np.testing.assert_array_equal(stored(tmp_path / "membrane.zarr"), before)


def test_a_plain_copy_is_the_volume(tmp_path: Path) -> None:
    shape, block = (3, 40, 50), (2, 32, 32)
    source = make_volume(tmp_path / "raw.zarr", shape, chunk=(1, 16, 16))
    create_volume(tmp_path / "copy.zarr", shape=shape, shard=block, chunk=block, dtype="uint8", voxel_nm=(30, 6, 6))
    assert limit.plain_copy(source, tmp_path / "copy.zarr", block) > 0
    np.testing.assert_array_equal(stored(tmp_path / "copy.zarr"), stored(source))


def test_what_is_measured_on_a_gpu_runs_on_a_cpu_too(tmp_path: Path) -> None:
    scale = gpu.Scale(
        device="cpu", arguments={"width": 2, "depth": 1}, matrix=64,
        sides=(32,), batches=(1, 2), precisions=("float32",), shape=(2, 64, 64),
        sections=1, window=64, rounds=1, link=1 << 16,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where MONAI is installed
        figures = gpu.measured(tmp_path, scale, cluster="serial")
    assert [(row["side"], row["batch"]) for row in figures["forward"]] == [(32, 1), (32, 2)]
    assert all(row["kvoxel_s"] > 0 for row in figures["forward"])
    assert figures["link"]["bytes_in"] >= 4
    table = gpu_table({"figures": figures, **PLACE})
    assert "32 x 32" in table
    assert "volseg, halo 64" in table
    draw_gpu(tmp_path / "gpu.svg", {"figures": figures})
    assert "float32, batch 2" in texts(tmp_path / "gpu.svg")


def test_the_gpu_benchmark_is_refused_in_one_line_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"^benchmarks.gpu needs a CUDA device[^\n]*make bench[^\n]*$"):
        gpu.main()


PLACE: dict[str, Any] = {
    "date": "2026-11-21T12:00:00+00:00",
    "machine": {"processor": "a processor", "cores": 2, "system": "Linux"},
}


def recorded() -> dict[str, Any]:
    """An entry as benchmarks.peers writes it."""
    rates = {
        "volseg": [400.0, 300.0, 500.0],
        "volseg halo 64 float32": [90.0, 90.0, 90.0],
        "MONAI float32": [100.0, 60.0, 100.0],
        "limit at this halo": [500.0, 500.0, 500.0],
    }
    figures = {
        "network": "fusionnet", "arguments": {"width": 16}, "weights": "random", "sections": 4, "shape": [64, 64],
        "precision": "bfloat16", "halo": [0, 112, 112], "torch": "2", "start_up_s": 4.6, "halo_measured": True,
        "left_out": {"torch-em float32": "No module named 'torch_em'"}, "versions": {"monai": "1"},
        "computed": {"volseg": 1.49}, "data": "generated EM", "load_before": 0.1, "kvoxel_s": rates,
    }  # fmt: skip
    return {"figures": figures, **PLACE}


def test_a_ratio_is_taken_within_a_round() -> None:
    assert ratios(recorded()["figures"], "volseg", "MONAI float32") == [4.0, 5.0, 5.0]
    assert ratios(recorded()["figures"], "volseg", "torch-em float32") == []
    assert spread([4.0, 5.0, 5.0]) == "5.00 (4.00 to 5.00)"
    assert spread([4.0]) == "4.00"


def test_the_page_says_whether_a_target_is_met() -> None:
    lines = targets_table([recorded()]).splitlines()[2:]
    name, auto = "FusionNet, width 16", "volseg, halo auto (112), bfloat16"
    assert lines == [
        f"| {name} | {auto} | MONAI, float32 | 5.00 (4.00 to 5.00) | 4 | yes |",
        f"| {name} | volseg, halo 64, float32 | MONAI, float32 | 0.90 (0.90 to 1.50) | 1.8 | no |",
        f"| {name} | {auto} | limit at halo 112, bfloat16 | 0.80 (0.60 to 1.00) | 0.9 | no |",
    ]
    assert targets_table([]) == ""


def test_the_page_says_who_was_left_out_and_what_came_before() -> None:
    table = peers_table([recorded()])
    assert "| FusionNet, width 16 | MONAI, float32 | 100 | 60.0 to 100 | - |" in table
    assert "| volseg, halo auto (112), bfloat16 | 400 | 300 to 500 | 1.49 |" in table
    assert "torch-em float32 was left out (No module named 'torch_em')." in table
    assert "sections of 64 x 64 (generated EM), one a round, 4 for volseg, 3 rounds; " in table
    assert "start-up, statistics and halo took 5 s." in table
    assert peers_table([]) == ""


def test_the_page_says_what_a_second_worker_brings() -> None:
    workers = {"precision": "float32", "scaling": [1.9, 1.8], "busy": {"1": [0.95], "2": [0.9]}}
    figures = {"network": "a network", "workers": workers, "copy": {"share": [0.6]}}
    lines = limit_table({"figures": figures, **PLACE}).splitlines()
    assert lines[2] == "| two workers, times as fast as one | 1.85 (1.80 to 1.90) | 1.85 | yes |"
    assert lines[5] == "| identity network, times as fast as a plain copy | 0.60 | 0.7 | no |"
    assert limit_table(None) == gpu_table(None) == ""


def texts(picture: Path) -> set[str]:
    """What is written in a picture."""
    return {text.strip() for text in re.findall(r"<text[^>]*>([^<]*)</text>", picture.read_text())}


def test_the_picture_names_every_contender_and_its_rate(tmp_path: Path) -> None:
    entry = recorded()
    draw_peers(tmp_path / "peers.svg", [entry])
    written = texts(tmp_path / "peers.svg")
    assert {label(name, entry["figures"]) for name in entry["figures"]["kvoxel_s"]} <= written
    assert {"400", "90.0", "100", "500"} <= written


def test_the_pictures_are_those_of_the_figures(tmp_path: Path) -> None:
    """If this fails: python -m benchmarks.charts."""
    compared = [entry for case in CASES if (entry := results(f"peers-{case}")) is not None]
    assert (DOCS / PICTURES["peers"]).exists() == bool(compared)
    assert (DOCS / PICTURES["gpu"]).exists() == (results("gpu") is not None)
    if compared:
        draw_peers(tmp_path / "peers.svg", compared)
        assert texts(DOCS / PICTURES["peers"]) == texts(tmp_path / "peers.svg")


def test_the_cases_of_the_page_are_those_that_are_measured() -> None:
    assert tuple(case.name for case in MADE) == CASES


def test_every_peer_is_pinned() -> None:
    lines = (ROOT / "benchmarks" / "peers.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    packages = {package for _, package, _ in PEERS.values()}
    assert packages - {"dask"} <= pinned
    assert all("==" in line or line.startswith("#") for line in lines if line)
    assert "dask" in versions(["Dask float32"])


def test_the_page_is_in_the_guide() -> None:
    assert "(benchmarks.md)" in (DOCS / "README.md").read_text()
