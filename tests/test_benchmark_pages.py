"""Tables and pictures show the results of benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.adapters import PEERS, versions
from benchmarks.cases import CASES as MEASURED_CASES
from benchmarks.charts import DOCS, draw_peers
from benchmarks.component_tables import (
    cropping_table,
    engines_table,
    malloc_table,
    memory_table,
    rounding_table,
    scale_table,
    scheduler_table,
)
from benchmarks.peer_tables import (
    CASES,
    PICTURES,
    gpu_table,
    limit_table,
    method_label,
    peers_table,
    ratios,
    targets_table,
    with_range,
)
from benchmarks.record import read_result
from tests.pages import MEASURED_ON, svg_texts

ROOT = Path(__file__).parents[1]


def peers_result() -> dict[str, Any]:
    """A result as benchmarks.peers writes it."""
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
    return {"figures": figures, **MEASURED_ON}


def test_ratios_are_of_rates_in_one_round() -> None:
    assert ratios(peers_result()["figures"], "volseg", "MONAI float32") == [4.0, 5.0, 5.0]
    assert ratios(peers_result()["figures"], "volseg", "torch-em float32") == []
    assert with_range([4.0, 5.0, 5.0]) == "5.00 (4.00 to 5.00)"
    assert with_range([4.0]) == "4.00"


def test_the_page_names_the_weights() -> None:
    for name, width, weights in [
        ("random", 16, "random weights"),
        ("fusionnet-snemi3d", 16, "`fusionnet-snemi3d`"),
        ("fusionnet-snemi3d", 64, "`fusionnet-snemi3d` widened"),
    ]:
        entry = peers_result()
        entry["figures"] |= {"weights": name, "arguments": {"width": width}}
        assert f"- FusionNet, width {width}: {weights}, sections of" in peers_table([entry])


def test_the_page_states_whether_a_target_is_met() -> None:
    lines = targets_table([peers_result()]).splitlines()[2:]
    name, auto = "FusionNet, width 16", "volseg, halo auto (112), bfloat16"
    assert lines == [
        f"| {name} | {auto} | MONAI, float32 | 5.00 (4.00 to 5.00) | 4 | yes |",
        f"| {name} | volseg, halo 64, float32 | MONAI, float32 | 0.90 (0.90 to 1.50) | 1.8 | no |",
        f"| {name} | {auto} | limit at halo 112, bfloat16 | 0.80 (0.60 to 1.00) | 0.9 | no |",
    ]
    assert targets_table([]) == ""


def test_the_page_states_missing_peers_and_start_up() -> None:
    table = peers_table([peers_result()])
    assert "| FusionNet, width 16 | MONAI, float32 | 100 | 60.0 to 100 | - |" in table
    assert "| volseg, halo auto (112), bfloat16 | 400 | 300 to 500 | 1.49 |" in table
    assert "torch-em float32 was left out (No module named 'torch_em')." in table
    assert "sections of 64 x 64 (generated EM), one per round, 4 for volseg, 3 rounds; " in table
    assert "start-up, statistics and halo took 5 s." in table
    assert peers_table([]) == ""


def test_the_page_states_the_scaling_to_two_workers() -> None:
    workers = {"precision": "float32", "scaling": [1.9, 1.8], "busy": {"1": [0.95], "2": [0.9]}}
    bare = {**workers, "bare_scaling": [1.9]}
    figures = {"network": "a network", "workers": workers, "copy": {"share": [0.6]}}
    lines = limit_table({"figures": figures, **MEASURED_ON}).splitlines()
    assert lines[2] == "| two workers, rate / rate of one | 1.85 (1.80 to 1.90) | 1.85 | yes |"
    assert lines[5] == "| identity network, rate / rate of a plain copy | 0.60 | 0.7 | no |"
    with_bare = limit_table({"figures": {**figures, "workers": bare}, **MEASURED_ON}).splitlines()
    assert with_bare[3] == "| two bare forward passes at once, rate / rate of one | 1.90 | - | - |"
    assert limit_table(None) == gpu_table(None) == ""


def test_the_page_states_the_speed_of_engines() -> None:
    seconds = {"volseg float32": [1.0, 2.0, 3.0], "OpenVINO float32": [2.0, 2.0, 2.0]}
    networks = [{"network": "unet", "arguments": {"width": 32}, "seconds": seconds}]
    about = {"core": [1, 512, 512], "halo": [0, 112, 112], "threads": 2, "torch": "2", "openvino": "2026.4"}
    table = engines_table({"figures": {**about, "networks": networks}, **MEASURED_ON})
    assert "| U-Net, width 32 | OpenVINO, float32 | 2.000 | 1.00 (0.50 to 1.50) |" in table
    assert "Tiles of 736 x 736, 2 threads, torch 2, OpenVINO 2026.4;" in table
    assert engines_table(None) == ""


def test_the_page_states_the_savings_of_cropping() -> None:
    row = {"halo": 64, "computed": 1.266, "operations_share": 0.9, "seconds_share": [0.8, 0.95, 0.92]}
    networks = [{"network": "fusionnet", "arguments": {"width": 16}, "rows": [row]}]
    figures = {"core": [1, 1024, 1024], "precision": "bfloat16", "threads": 2, "networks": networks}
    table = cropping_table({"figures": figures, **MEASURED_ON})
    assert "| FusionNet, width 16 | 64 | 1.27 | 10 % | 8 % |" in table
    assert cropping_table(None) == ""


def test_the_page_states_the_error_of_predicted_peaks() -> None:
    network = {"network": "fusionnet", "arguments": {"width": 16}, "precision": "bfloat16", "predicted": [1000, 1000]}
    figures = {"data": "generated EM", "block": [1, 512, 512]}
    for measured, cells in [([810, 1190], "1.00 (0.81 to 1.19) | yes |"), ([1000, 790], "0.90 (0.79 to 1.00) | no |")]:
        table = memory_table({"figures": {**figures, "networks": [{**network, "measured": measured}]}, **MEASURED_ON})
        assert f"| FusionNet, width 16 | bfloat16 | 1000 | {sum(measured) / 2:.0f} | {cells}" in table
    assert memory_table(None) == ""


def test_the_page_states_what_malloc_costs_in_each_setting() -> None:
    default = {"cpu_seconds_ratio": [1.0, 1.0], "peak_ratio": [1.0, 1.0], "page_faults": 350088}
    retained = {"cpu_seconds_ratio": [0.6, 0.8], "peak_ratio": [0.9, 1.0], "page_faults": 0}
    figures = {"model": "m", "core": [1, 8, 8], "threads": 1, "settings": {"default": default, "retained": retained}}
    table = malloc_table({"figures": figures, **MEASURED_ON})
    assert "| retained | 0.70 (0.60 to 0.80) | 0.95 (0.90 to 1.00) | 0 |" in table
    assert malloc_table(None) == ""


def test_the_page_states_the_overhead_of_many_blocks() -> None:
    def run(blocks: int, mib: float) -> dict[str, Any]:
        return {"blocks": blocks, "driver_and_scheduler_mib": mib, "driver_and_scheduler_cpu_ms_a_block": 0.25}

    figures = {
        "no work": [run(1_000, 300.0), run(10_000, 500.0), run(1_000_000, 394.0)],
        "fleet": {"workers": 64, "seconds_a_block": 1.0, "busy_share": 0.94, "bytes_fetched_from_workers": 0},
        "journal": {"marks": 1_000_000, "resume_seconds": 30.04},
    }
    lines = scheduler_table({"figures": figures, **MEASURED_ON}).splitlines()[2:7]
    assert lines[0] == "| growth of driver and scheduler from 1,000 to 1,000,000 blocks, MiB | 94.0 | 95 | yes |"
    assert [line.split(" | ")[-1] for line in lines] == ["yes |", "yes |", "no |", "yes |", "no |"]
    assert scheduler_table(None) == ""


def test_the_table_of_scale_compares_with_its_limits() -> None:
    figures = {
        "driver": {"blocks": 10_000_000, "driver_cpu_ms_a_block": 0.0328},
        "journal": {"marks": 99_999_990, "process_mib": 501.0, "resume_seconds": 43.21, "status_seconds": 0.9,
                    "bytes_a_mark": 72.0},
        "dask": {"blocks": 1_000_000, "driver_and_scheduler_cpu_ms_a_block": 0.054, "driver_and_scheduler_mib": 332.7},
    }  # fmt: skip
    lines = scale_table({"figures": figures, **MEASURED_ON}).splitlines()
    assert "| CPU time of a driver without Dask per block, of 10,000,000 blocks, ms | 0.0328 | 0.3 | yes |" in lines
    assert "| memory of a driver that resumes 99,999,990 marks, MiB | 501 | 500 | no |" in lines
    assert "| finding the remaining blocks, seconds | 43.2 | 60 | yes |" in lines
    assert scale_table(None) == ""


def test_the_page_states_the_effect_of_rounding() -> None:
    effect = {"precision": "bfloat16", "share_within_one_level": 0.98, "greatest": 16, "v_rand_change": -0.0011}
    entry = {"benchmark": "packaged-a", "figures": {"against_float32": effect}, **MEASURED_ON}
    assert "| `a` | bfloat16 | 98.00 % | 16 | -0.00110 | no |" in rounding_table([entry])
    effect["v_rand_change"] = 0.001
    assert "| +0.00100 | yes |" in rounding_table([entry])
    assert rounding_table([]) == ""


def test_the_picture_names_every_method_and_its_rate(tmp_path: Path) -> None:
    entry = peers_result()
    draw_peers(tmp_path / "peers.svg", [entry])
    labels = svg_texts(tmp_path / "peers.svg")
    assert {method_label(name, entry["figures"]) for name in entry["figures"]["kvoxel_s"]} <= labels
    assert {"400", "90.0", "100", "500"} <= labels


def test_pictures_show_the_results(tmp_path: Path) -> None:
    """If this fails: python -m benchmarks.charts."""
    peers = [entry for case in CASES if (entry := read_result(f"peers-{case}")) is not None]
    assert (DOCS / PICTURES["peers"]).exists() == bool(peers)
    assert (DOCS / PICTURES["gpu"]).exists() == (read_result("gpu") is not None)
    if peers:
        draw_peers(tmp_path / "peers.svg", peers)
        assert svg_texts(DOCS / PICTURES["peers"]) == svg_texts(tmp_path / "peers.svg")


def test_the_page_has_the_cases_that_are_measured() -> None:
    assert tuple(case.name for case in MEASURED_CASES) == CASES


def test_every_peer_is_pinned() -> None:
    lines = (ROOT / "benchmarks" / "peers.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    packages = {package for _, package, _ in PEERS.values()}
    assert packages - {"dask"} <= pinned
    assert all("==" in line or line.startswith("#") for line in lines if line)
    assert "dask" in versions(["Dask float32"])


def test_the_page_is_in_the_guide() -> None:
    assert "(benchmarks.md)" in (DOCS / "README.md").read_text()
