"""The page on networks names every argument, and its tables agree with the benchmarks and with the code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.networks import CASES, largest_input
from benchmarks.record import read_result
from benchmarks.tables import PACKAGED, PAGE, fill_tables, literature_table, networks_table, pages
from volseg.blocks import Footprint
from volseg.models import NETWORKS, packaged_models, read_card
from volseg.models.catalog import network_details

HEADINGS = {
    "unet": "U-Net",
    "fusionnet": "FusionNet",
    "fusionnet_chain": "Chained FusionNets",
    "fcn32s": "FCN",
    "fcn16s": "FCN",
    "fcn8s": "FCN",
    "deconvnet": "DeconvNet",
    "sliding_window": "Sliding window",
}
OF_ALL = {"out_channels"}
"""Arguments explained once for all networks."""


def section(heading: str) -> str:
    """Text below a heading of the page."""
    _, _, rest = PAGE.read_text().partition(f"\n## {heading}\n")
    return rest.partition("\n## ")[0]


def measured() -> list[dict[str, Any]]:
    entry = read_result("networks")
    assert entry is not None
    rows: list[dict[str, Any]] = entry["figures"]["networks"]
    return rows


@pytest.mark.parametrize("page", pages(), ids=lambda page: f"{page.parent.name}/{page.name}")
def test_the_tables_agree_with_the_benchmarks(page: Path) -> None:
    """If this fails: python -m benchmarks.tables."""
    assert page.read_text() == fill_tables(page.read_text(), pages()[page])


def test_every_measured_network_is_in_the_table() -> None:
    assert all(f"`{row['network']}`" in PAGE.read_text() for row in measured())


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_the_packaged_models_are_the_scored_ones(name: str) -> None:
    entry = read_result(f"packaged-{name}")
    assert entry is not None
    assert read_card(packaged_models()[name]).digest == entry["figures"]["digest"]
    assert set(packaged_models()) == set(PACKAGED)


def test_every_case_of_the_benchmark_was_measured() -> None:
    cases = {(case.network, case.variant) for case in CASES}
    assert {(row["network"], row["variant"]) for row in measured()} == cases
    assert {(name, "") for name in NETWORKS} <= cases


@pytest.mark.parametrize("row", measured(), ids=lambda row: f"{row['network']} {row['variant']}".strip())
def test_figures_independent_of_the_machine_agree_with_the_code(row: dict[str, Any]) -> None:
    facts = network_details(row["network"], row["arguments"])
    del facts["name"], facts["summary"]
    assert {key: row[key] for key in facts} == facts


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_argument_is_explained(name: str) -> None:
    kind = NETWORKS[name]
    taken = {n for n, p in inspect.signature(kind).parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
    if name == "fusionnet_chain":
        taken |= set(inspect.signature(NETWORKS["fusionnet"]).parameters)
    named = set(re.findall(r"`(\w+)`", section(HEADINGS[name])))
    assert taken - OF_ALL <= named
    assert f"`{name}`" in PAGE.read_text()


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_defaults_are_as_stated(name: str) -> None:
    stated = dict(re.findall(r"`(\w+)` \(`?([^)`]+)`?\)", section(HEADINGS[name])))
    parameters = inspect.signature(NETWORKS[name]).parameters
    for argument in stated.keys() & parameters.keys():
        default = parameters[argument].default
        assert stated[argument] == str(list(default) if isinstance(default, tuple) else default).lower()


def test_the_text_on_halos_agrees_with_the_code() -> None:
    fusionnet = network_details("fusionnet")
    text = f"FusionNet has a reach of {fusionnet['reach'][1]} and an exact halo of {fusionnet['exact_halo'][1]}"
    assert text in section("Reach, stride and halo")


def test_a_table_goes_between_its_markers_and_nowhere_else() -> None:
    page = "a\n<!-- table: one -->\nold\n<!-- end -->\nb\n<!-- table: two -->\n<!-- end -->\nc"
    made = fill_tables(page, {"one": r"| \1 |", "two": ""})
    assert made == "a\n<!-- table: one -->\n\n| \\1 |\n\n<!-- end -->\nb\n<!-- table: two -->\n<!-- end -->\nc"
    assert fill_tables(made, {"one": r"| \1 |", "two": ""}) == made
    with pytest.raises(ValueError, match="table: three"):
        fill_tables(page, {"three": ""})


MACHINE = {"machine": {"processor": "P", "cores": 4}, "date": "2026-11-21T16:45:42+00:00"}


def test_rows_are_rounded() -> None:
    row = {
        "network": "unet", "variant": "padded", "parameters": 219_290, "layers": 6, "reach": [0, 47, 47],
        "stride": [1, 1, 1], "margin": [0, 47, 47], "exact_halo": [0, 47, 47], "flops_per_voxel": 437_792.0,
        "kvoxel_s": {"float32": 1234.5, "bfloat16": 9.876},
    }  # fmt: skip
    figures = {"busy": True, "threads": 2, "torch": "2", "networks": [row]}
    lines = networks_table({**MACHINE, "figures": figures}).splitlines()
    assert lines[2] == "| `unet`, padded | 0.22 M | 6 | 0,47,47 | 1,1,1 | 0,47,47 | 0,47,47 | 438 | 1234 | 9.88 |"
    assert lines[-1].startswith("Measured on 2026-11-21 on P, 4 cores, 2 threads, torch 2, with other work on the")
    assert networks_table(None) == ""


def test_scores_are_averaged_over_seeds() -> None:
    runs = [
        {"parameters": 485_682, "f1": f1, "average_precision": 0.5, "seconds": 10.0, "predict_kvoxel_s": rate}
        for f1, rate in [(0.5, 1.0), (0.7, 3.0), (0.6, 50.0)]
    ]
    figures = {"arguments": {"width": 4, "padded": True}, "steps": 600, "threads": 1, "runs": runs}
    lines = literature_table([{**MACHINE, "benchmark": "literature-fcn8s", "figures": figures}]).splitlines()
    assert lines[2] == (
        "| `fcn8s` | width 4, padded true | 0.49 M | 600 | 0.600 | 0.500, 0.700, 0.600 | 0.500 | - | - | 10 | 3.00 |"
    )
    assert lines[-1] == "Measured on 2026-11-21 on P, 4 cores, 1 thread."
    assert literature_table([]) == ""


def test_the_input_is_the_largest_one_within_the_tile() -> None:
    unet = Footprint((0, 107, 107), (0, 107, 107), (1, 16, 16), (0, 92, 92), (1, 188, 188), (0, 92, 92))
    assert largest_input(unet, (1, 512, 512)) == [1, 508, 508]


def test_the_page_is_in_the_guide() -> None:
    assert "(networks.md)" in Path(PAGE.with_name("README.md")).read_text()
