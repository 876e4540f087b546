from __future__ import annotations

import numpy as np
import pytest
import zarr

from volseg.errors import ConfigError, SourceError
from volseg.view.sources import Role, find_layer_sources

SHAPE = (4, 32, 32)


def roles(*locations):
    return [source.role for source in find_layer_sources([str(location) for location in locations])]


def test_a_volume_with_a_run_record_is_the_membrane_map_at_any_position(make_volume):
    raw = make_volume("a.zarr", np.zeros(SHAPE, np.uint8))
    membrane = make_volume("b.zarr", np.zeros(SHAPE, np.uint8), by_run=True)
    assert roles(raw, membrane) == [Role.RAW, Role.MEMBRANE]
    assert roles(membrane, raw) == [Role.MEMBRANE, Role.RAW]
    assert roles(membrane / "0") == [Role.MEMBRANE]


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
def test_integers_after_the_raw_em_are_labels(make_volume, dtype):
    raw = make_volume("a.zarr", np.zeros(SHAPE, np.uint8))
    assert roles(raw, make_volume("b.zarr", np.zeros(SHAPE, dtype))) == [Role.RAW, Role.LABELS]


def test_sixteen_bits_may_be_raw_em_but_32_are_labels(make_volume):
    assert roles(make_volume("a.zarr", np.zeros(SHAPE, np.uint16))) == [Role.RAW]
    assert roles(make_volume("b.zarr", np.zeros(SHAPE, np.uint32))) == [Role.LABELS]


@pytest.mark.parametrize(
    ("name", "dtype", "role"),
    [
        ("membrane_v3.zarr", "uint8", Role.MEMBRANE),
        ("prob.ome.zarr", "float32", Role.MEMBRANE),
        ("truth.zarr", "uint8", Role.LABELS),
        ("second.zarr", "uint8", Role.IMAGE),
        ("second.zarr", "float32", Role.IMAGE),
    ],
)
def test_other_volumes_after_the_raw_em_are_classified_by_name(make_volume, name, dtype, role):
    raw = make_volume("a.zarr", np.zeros(SHAPE, np.uint8))
    assert roles(raw, make_volume(name, np.zeros(SHAPE, dtype))) == [Role.RAW, role]


def layers(*locations):
    """Name, role and visibility of the layers."""
    return [
        (source.name, source.role, source.visible)
        for source in find_layer_sources([str(location) for location in locations])
    ]


def channels(*names):
    return {"voxels": np.zeros((len(names), *SHAPE), np.uint8), "channels": names}


def test_three_affinities_are_visible_and_those_of_longer_reach_are_hidden(make_volume):
    names = [f"aff_{axis}{reach}" for reach in (1, 9) for axis in "zyx"]
    expected = [(f"m: {name}", Role.AFFINITY, place < 3) for place, name in enumerate(names)]
    assert layers(make_volume("m.zarr", **channels(*names), by_run=True)) == expected


@pytest.mark.parametrize("by_run", [True, False])
def test_of_classes_only_the_membrane_is_visible_and_without_it_all(make_volume, by_run):
    raw = make_volume("raw.zarr", np.zeros(SHAPE, np.uint8))
    classes = make_volume("a.zarr", **channels("cell", "membrane"), by_run=by_run)
    others = make_volume("b.zarr", **channels("mitochondrion", "vesicle"), by_run=by_run)
    assert layers(classes, raw, others) == [
        ("a: cell", Role.MEMBRANE, False),
        ("a: membrane", Role.MEMBRANE, True),
        ("raw", Role.RAW, True),
        ("b: mitochondrion", Role.MEMBRANE, True),
        ("b: vesicle", Role.MEMBRANE, True),
    ]


@pytest.mark.parametrize(("dtype", "role"), [("uint16", Role.IMAGE), ("uint64", Role.LABELS)])
def test_of_channels_that_are_no_probabilities_the_first_is_visible(make_volume, dtype, role):
    path = make_volume("a.zarr", np.zeros((2, *SHAPE), dtype), channels=("one", "other"))
    assert layers(path) == [("a: one", role, True), ("a: other", role, False)]


def test_the_uncertainty_of_a_map_is_a_hidden_layer(make_volume):
    voxels = np.zeros(SHAPE, np.uint8)
    path = make_volume("m.zarr", voxels, by_run=True, uncertainty=voxels)
    hidden = ("m uncertainty", Role.UNCERTAINTY, False)
    assert layers(path) == layers(path / "0") == [("m", Role.MEMBRANE, True), hidden]
    assert layers(path, path) == [("m", Role.MEMBRANE, True), ("m 2", Role.MEMBRANE, True), hidden]


def test_an_uncertainty_that_is_a_source_is_one_visible_layer(make_volume):
    voxels = np.zeros(SHAPE, np.uint8)
    path = make_volume("m.zarr", voxels, by_run=True, uncertainty=voxels)
    shown = ("m uncertainty", Role.UNCERTAINTY, True)
    assert layers(path, path / "uncertainty") == [("m", Role.MEMBRANE, True), shown]
    assert layers(path / "uncertainty" / "0") == [shown]


def test_the_uncertainty_of_several_classes_has_their_channels(make_volume):
    of = channels("affinity_y", "affinity_x")
    path = make_volume("m.zarr", **of, by_run=True, uncertainty=of["voxels"])
    names = ["m uncertainty: affinity_y", "m uncertainty: affinity_x"]
    assert layers(path)[2:] == [(name, Role.UNCERTAINTY, False) for name in names]
    assert layers(path / "uncertainty") == [(names[0], Role.UNCERTAINTY, True), (names[1], Role.UNCERTAINTY, False)]


def test_urls_are_classified_by_position_and_name_and_not_opened():
    urls = [f"https://h/{name}" for name in ("em.zarr", "membrane.zarr/|zarr3:", "truth", "other")]
    assert roles(*urls) == [Role.RAW, Role.MEMBRANE, Role.LABELS, Role.UNKNOWN]


def test_layers_have_unique_names_from_their_volumes(make_volume):
    path = make_volume("em.ome.zarr", np.zeros(SHAPE, np.uint8))
    names = [
        source.name for source in find_layer_sources([str(path), f"file://{path}", f"{path}/0", "https://h/em.zarr/0"])
    ]
    assert names == ["em", "em 2", "em 3", "em 4"]


def test_no_source_is_refused():
    with pytest.raises(ConfigError, match="at least one volume"):
        find_layer_sources([])


def test_a_type_that_the_browser_cannot_draw_is_refused(tmp_path):
    zarr.create_array(tmp_path / "a", shape=SHAPE, dtype="float64")
    with pytest.raises(SourceError, match=r"float64.*float32"):
        find_layer_sources([str(tmp_path / "a")])
