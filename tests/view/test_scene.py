from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from volseg.storage import Place
from volseg.storage.axes import AxisLayout
from volseg.view.local_volume import LocalVolume
from volseg.view.scene import Layer, scene
from volseg.view.sources import LayerSource, Role


def volume(shape=(20, 700, 900), voxel_nm=(30.0, 6.0, 6.0), translation_nm=None, **changes):
    volumes = {
        "folder": Path("/v"),
        "array": Path("/v/0"),
        "format": "zarr3",
        "axes": ("z", "y", "x"),
        "dtype": "uint8",
        "place": Place.of_nm(voxel_nm, translation_nm),
        "max_downsampling": 1.0,
        "is_multiscale": voxel_nm is not None,
        "has_run_record": False,
    }
    volumes |= changes
    leading = len(volumes["axes"]) - 3
    layout = AxisLayout(
        (3,) * leading + shape, tuple(leading + axis for axis in range(3)), volumes.pop("channel_axis", None)
    )
    return LocalVolume(layout=layout, **volumes)


def layer(name, role, volumes, **more):
    return Layer(LayerSource(name, name, role, volumes, **more), f"zarr3://http://127.0.0.1:1/{name}/")


def affinities(**changes):
    """The layers of three channels."""
    volumes = volume(**{"channels": ("z", "y", "x"), "channel_axis": 0, "axes": ("c'", "z", "y", "x")} | changes)
    return [layer(name, Role.AFFINITY, volumes, channel=place) for place, name in enumerate("zyx")]


def layers_of(state):
    return {one["name"]: one for one in state["layers"]}


def test_the_view_opens_on_the_middle_section_at_its_voxel_size_and_fits_it():
    state = scene([layer("raw", Role.RAW, volume())])
    assert state["dimensions"] == {"z": [30.0, "nm"], "y": [6.0, "nm"], "x": [6.0, "nm"]}
    assert state["position"] == [10, 350, 450]
    assert state["crossSectionScale"] == 1.0
    assert (state["layout"], state["displayDimensions"]) == ("xy", ["x", "y", "z"])


def test_the_zoom_counts_in_the_smallest_voxel_length():
    assert scene([layer("raw", Role.RAW, volume(voxel_nm=(3.0, 6.0, 6.0)))])["crossSectionScale"] == 2.0


@pytest.mark.parametrize(("max_downsampling", "scale"), [(1.0, 2), (8.0, 16)])
def test_the_first_zoom_of_a_huge_volume_is_limited_by_its_levels(max_downsampling, scale):
    state = scene([layer("raw", Role.RAW, volume(shape=(1000, 10**5, 10**5), max_downsampling=max_downsampling))])
    assert state["crossSectionScale"] == scale


def test_membranes_lie_over_labels_over_raw_and_their_controls_are_open():
    roles = {"m": Role.MEMBRANE, "ids": Role.LABELS, "other": Role.IMAGE, "raw": Role.RAW}
    state = scene([layer(name, role, volume()) for name, role in roles.items()])
    assert list(layers_of(state)) == ["raw", "other", "ids", "m"]
    assert [one["type"] for one in state["layers"]] == ["image", "image", "segmentation", "image"]
    assert layers_of(state)["raw"]["opacity"] == 1
    assert 0 < layers_of(state)["m"]["opacity"] < 1
    assert state["selectedLayer"]["layer"] == "m"
    assert state["selectedLayer"]["visible"]


def test_two_membrane_maps_have_different_shaders():
    state = scene([layer(name, Role.MEMBRANE, volume()) for name in "ab"])
    assert layers_of(state)["a"]["shader"] != layers_of(state)["b"]["shader"]


def test_a_plain_array_has_the_voxel_size_and_position_of_a_volume_of_its_shape():
    plain = volume(voxel_nm=None, axes=("d0", "d1", "d2"))
    state = scene([layer("raw", Role.RAW, volume()), layer("ids", Role.LABELS, plain)])
    transform = layers_of(state)["ids"]["source"]["transform"]
    assert transform["outputDimensions"] == state["dimensions"]
    assert transform["inputDimensions"] == {"d0": [30.0, "nm"], "d1": [6.0, "nm"], "d2": [6.0, "nm"]}
    assert [row[-1] for row in transform["matrix"]] == [-0.5] * 3
    assert "transform" not in layers_of(state)["raw"]["source"]


def test_leading_axes_are_local_to_a_layer():
    five = volume(voxel_nm=None, axes=("t", "c'", "z", "y", "x"), is_multiscale=True)
    transform = scene([layer("raw", Role.RAW, five)])["layers"][0]["source"]["transform"]
    assert list(transform["outputDimensions"]) == ["d0'", "d1'", "z", "y", "x"]
    assert [row[-1] for row in transform["matrix"]] == [0.0] * 5


def test_each_channel_is_a_layer_at_its_own_position():
    shown = layers_of(scene(affinities()))
    assert [shown[name]["localPosition"] for name in "zyx"] == [[0], [1], [2]]
    assert "transform" not in shown["z"]["source"]


@pytest.mark.parametrize(
    ("changed", "at"),
    [
        ({"is_multiscale": False, "axes": ("c", "z", "y", "x")}, [2.5]),  # corners are whole numbers there
        ({"axes": ("c", "z", "y", "x")}, [2]),
        ({"voxel_nm": None, "is_multiscale": True, "axes": ("t", "c'", "z", "y", "x"), "channel_axis": 1}, [0, 2]),
        ({"axes": ("t", "c'", "z", "y", "x"), "channel_axis": 1}, [2]),
    ],
)
def test_the_local_position_of_a_layer_has_the_axes_that_it_does_not_share(changed, at):
    assert layers_of(scene(affinities(**changed)))["x"]["localPosition"] == at


def test_affinities_add_up_below_a_half_transparent_raw_em():
    state = scene([layer("raw", Role.RAW, volume(shape=(8, 70, 90))), *affinities()])
    assert list(layers_of(state)) == ["z", "y", "x", "raw"]
    assert [one.get("blend") for one in state["layers"]] == ["additive"] * 3 + [None]
    assert [one["opacity"] for one in state["layers"]] == [1, 1, 1, 0.5]
    assert state["position"] == [4, 35, 45]


def test_a_hidden_layer_is_not_selected_and_does_not_have_the_first_colour():
    volumes = volume(channels=("cell", "membrane"), channel_axis=0, axes=("c'", "z", "y", "x"))
    layers = [layer("membrane", Role.MEMBRANE, volumes, channel=1), layer("raw", Role.RAW, volume())]
    expected = layers_of(scene(layers))["membrane"]
    state = scene([layer("cell", Role.MEMBRANE, volumes, channel=0, visible=False), *layers])
    assert layers_of(state)["membrane"] == expected
    assert layers_of(state)["cell"]["visible"] is False
    assert (state["selectedLayer"]["layer"], state["title"]) == ("membrane", "volseg: membrane, raw")


def test_uncertainty_lies_between_raw_and_membranes():
    roles = {"m": Role.MEMBRANE, "u": Role.UNCERTAINTY, "raw": Role.RAW}
    assert list(layers_of(scene([layer(name, role, volume()) for name, role in roles.items()]))) == ["raw", "u", "m"]


def test_without_any_voxel_size_lengths_have_no_unit():
    state = scene([layer("raw", Role.RAW, volume(voxel_nm=None))])
    assert state["dimensions"] == {"z": [1.0, ""], "y": [1.0, ""], "x": [1.0, ""]}


def test_volumes_of_different_voxel_sizes_have_their_own_scale():
    other = volume(shape=(5, 60, 60), voxel_nm=(8.0, 8.0, 8.0), is_multiscale=False)
    stray = volume(shape=(9, 9, 9), voxel_nm=None)
    state = scene([layer("raw", Role.RAW, volume()), layer("o", Role.IMAGE, other), layer("s", Role.IMAGE, stray)])
    sizes = {name: one["source"].get("transform", {}).get("outputDimensions") for name, one in layers_of(state).items()}
    assert sizes["o"]["z"] == [8.0, "nm"]
    assert sizes["s"]["z"] == [1.0, "nm"]


MOVED = (1000.0, 400.0, 800.0)


def test_the_view_opens_in_the_middle_of_a_translated_volume():
    state = scene([layer("raw", Role.RAW, volume(voxel_nm=(50.0, 4.0, 4.0), translation_nm=MOVED))])
    assert state["position"] == [10 + 20, 350 + 100, 450 + 200]
    assert "transform" not in layers_of(state)["raw"]["source"]


def test_a_plain_array_lies_at_its_own_translation_or_at_that_of_a_volume_of_its_shape():
    raw = volume(voxel_nm=(50.0, 4.0, 4.0), translation_nm=MOVED)
    level = volume((20, 350, 450), voxel_nm=(50.0, 8.0, 8.0), translation_nm=(1000, 402, 802), is_multiscale=False)
    labels = volume(voxel_nm=None)
    state = scene([layer("raw", Role.RAW, raw), layer("l", Role.IMAGE, level), layer("ids", Role.LABELS, labels)])
    columns = {name: one["source"].get("transform") for name, one in layers_of(state).items()}
    assert [row[-1] for row in columns["l"]["matrix"]] == [20 - 0.5, 50.25 - 0.5, 100.25 - 0.5]
    assert [row[-1] for row in columns["ids"]["matrix"]] == [20 - 0.5, 100 - 0.5, 200 - 0.5]


def test_a_translation_without_a_unit_is_not_added_twice():
    """Neuroglancer adds that of an OME-Zarr itself; a plain array of it is drawn beside."""
    place = Place((50, 4, 4), (1000, 400, 800))
    group, array = volume(is_multiscale=True, place=place), volume(is_multiscale=False, place=place)
    state = scene([layer("group", Role.RAW, group), layer("array", Role.IMAGE, array)])
    shifts = {name: one["source"]["transform"]["matrix"] for name, one in layers_of(state).items()}
    assert [row[-1] for row in shifts["group"]] == [0, 0, 0]
    assert [row[-1] for row in shifts["array"]] == [20 - 0.5, 100 - 0.5, 200 - 0.5]
    assert state["position"] == [10 + 20, 350 + 100, 450 + 200]


def test_the_first_view_of_urls_is_left_to_neuroglancer():
    sources = [LayerSource("em", "s3://b/em", Role.RAW, None), LayerSource("x", "s3://b/x", Role.UNKNOWN, None)]
    state = scene([Layer(source, source.location) for source in sources])
    assert [one["source"]["url"] for one in state["layers"]] == ["s3://b/em", "s3://b/x"]
    assert layers_of(state)["x"]["type"] == "auto"
    assert not {"dimensions", "position"} & set(state)


def test_stored_axes_of_any_order_are_drawn_as_z_y_x():
    layout = AxisLayout((900, 3, 700, 20), (3, 2, 0), 1)
    stored = replace(volume(is_multiscale=False), axes=("x", "c'", "y", "z"), layout=layout)
    transform = layers_of(scene([layer("raw", Role.RAW, stored)]))["raw"]["source"]["transform"]
    assert list(transform["outputDimensions"]) == ["d1'", "z", "y", "x"]
    assert transform["inputDimensions"] == {"x": [6, "nm"], "c'": [1, ""], "y": [6, "nm"], "z": [30, "nm"]}
    point = np.array(transform["matrix"]) @ [7.5, 1, 5.5, 3.5, 1]  # the corner of a plain array's first voxel is at 0
    assert point.tolist() == [1, 3, 5, 7]
