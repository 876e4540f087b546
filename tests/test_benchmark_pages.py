"""The pages and pictures that benchmarks make of their figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.cases import CASES as MADE
from benchmarks.charts import DOCS, draw_peers
from benchmarks.comparison import (
    CASES,
    PICTURES,
    gpu_table,
    label,
    limit_table,
    peers_table,
    ratios,
    targets_table,
    with_range,
)
from benchmarks.contenders import PEERS, versions
from benchmarks.parts import cropping_table, engines_table, memory_table, rounding_table, scheduler_table
from benchmarks.record import results
from tests.pages import PLACE, texts

ROOT = Path(__file__).parents[1]


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
    assert with_range([4.0, 5.0, 5.0]) == "5.00 (4.00 to 5.00)"
    assert with_range([4.0]) == "4.00"


def test_the_page_says_whose_weights_ran() -> None:
    for name, width, told in [
        ("random", 16, "random weights"),
        ("fusionnet-snemi3d", 16, "`fusionnet-snemi3d`"),
        ("fusionnet-snemi3d", 64, "`fusionnet-snemi3d` widened"),
    ]:
        entry = recorded()
        entry["figures"] |= {"weights": name, "arguments": {"width": width}}
        assert f"- FusionNet, width {width}: {told}, sections of" in peers_table([entry])


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
    bare = {**workers, "bare_scaling": [1.9]}
    figures = {"network": "a network", "workers": workers, "copy": {"share": [0.6]}}
    lines = limit_table({"figures": figures, **PLACE}).splitlines()
    assert lines[2] == "| two workers, times as fast as one | 1.85 (1.80 to 1.90) | 1.85 | yes |"
    assert lines[5] == "| identity network, times as fast as a plain copy | 0.60 | 0.7 | no |"
    with_bare = limit_table({"figures": {**figures, "workers": bare}, **PLACE}).splitlines()
    assert with_bare[3] == "| two bare forward passes at once, times as fast as one | 1.90 | - | - |"
    assert limit_table(None) == gpu_table(None) == ""


def test_the_page_says_how_many_times_as_fast_an_engine_is() -> None:
    seconds = {"volseg float32": [1.0, 2.0, 3.0], "OpenVINO float32": [2.0, 2.0, 2.0]}
    networks = [{"network": "unet", "arguments": {"width": 32}, "seconds": seconds}]
    about = {"core": [1, 512, 512], "halo": [0, 112, 112], "threads": 2, "torch": "2", "openvino": "2026.4"}
    table = engines_table({"figures": {**about, "networks": networks}, **PLACE})
    assert "| U-Net, width 32 | OpenVINO, float32 | 2.000 | 1.00 (0.50 to 1.50) |" in table
    assert "Tiles of 736 x 736, 2 threads, torch 2, OpenVINO 2026.4;" in table
    assert engines_table(None) == ""


def test_the_page_says_what_cropping_saves() -> None:
    row = {"halo": 64, "computed": 1.266, "operations_share": 0.9, "seconds_share": [0.8, 0.95, 0.92]}
    networks = [{"network": "fusionnet", "arguments": {"width": 16}, "rows": [row]}]
    figures = {"core": [1, 1024, 1024], "precision": "bfloat16", "threads": 2, "networks": networks}
    table = cropping_table({"figures": figures, **PLACE})
    assert "| FusionNet, width 16 | 64 | 1.27 | 10 % | 8 % |" in table
    assert cropping_table(None) == ""


def test_the_page_says_how_far_a_peak_was_from_its_prediction() -> None:
    each = {"network": "fusionnet", "arguments": {"width": 16}, "precision": "bfloat16", "predicted": [1000, 1000]}
    figures = {"data": "generated EM", "block": [1, 512, 512]}
    for measured, told in [([810, 1190], "1.00 (0.81 to 1.19) | yes |"), ([1000, 790], "0.90 (0.79 to 1.00) | no |")]:
        table = memory_table({"figures": {**figures, "networks": [{**each, "measured": measured}]}, **PLACE})
        assert f"| FusionNet, width 16 | bfloat16 | 1000 | {sum(measured) / 2:.0f} | {told}" in table
    assert memory_table(None) == ""


def test_the_page_says_whether_a_million_blocks_cost_more_than_a_thousand() -> None:
    def ran(blocks: int, mib: float) -> dict[str, Any]:
        return {"blocks": blocks, "driver_and_scheduler_mib": mib, "driver_and_scheduler_cpu_ms_a_block": 1.5}

    figures = {
        "no work": [ran(1_000, 300.0), ran(10_000, 500.0), ran(1_000_000, 394.0)],
        "fleet": {"workers": 64, "seconds_a_block": 1.0, "busy_share": 0.94, "bytes_fetched_from_workers": 0},
        "journal": {"marks": 1_000_000, "resume_seconds": 30.04},
    }
    lines = scheduler_table({"figures": figures, **PLACE}).splitlines()[2:7]
    assert lines[0] == "| driver and scheduler grow from 1,000 to 1,000,000 blocks, MiB | 94.0 | 95 | yes |"
    assert [line.split(" | ")[-1] for line in lines] == ["yes |", "yes |", "no |", "yes |", "no |"]
    assert scheduler_table(None) == ""


def test_the_page_says_what_rounding_changes() -> None:
    told = {"precision": "bfloat16", "share_within_one_level": 0.98, "greatest": 16, "v_rand_change": -0.0011}
    entry = {"benchmark": "packaged-a", "figures": {"against_float32": told}, **PLACE}
    assert "| `a` | bfloat16 | 98.00 % | 16 | -0.00110 | no |" in rounding_table([entry])
    told["v_rand_change"] = 0.001
    assert "| +0.00100 | yes |" in rounding_table([entry])
    assert rounding_table([]) == ""


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
