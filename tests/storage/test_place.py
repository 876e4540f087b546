"""Voxel size and translation in nanometres, whatever states them, and never a guess."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr
from hypothesis import given
from hypothesis import strategies as st

import volseg
from volseg.errors import ConfigError, SourceError
from volseg.storage import Place, ReadOptions, open_readable, open_stack, open_volume, place_of
from volseg.storage.create import create_volume
from volseg.storage.units import length_nm
from volseg.storage.zarr_metadata import read_metadata
from volseg.testing.factories import make_volume

SHAPE = (2, 4, 4)
NM = {
    "nm": 1, "nanometer": 1, "nanometre": 1, "nanometers": 1, "Nanometres": 1, "um": 1e3, "\u00b5m": 1e3,
    "\u03bcm": 1e3, "micrometer": 1e3, "micrometre": 1e3, "micron": 1e3, "microns": 1e3, "mm": 1e6, "millimetre": 1e6,
    "cm": 1e7, "centimeters": 1e7, "m": 1e9, "meter": 1e9, "metres": 1e9, "km": 1e12, "Mm": 1e15, "pm": 1e-3,
    "picometer": 1e-3, "angstrom": 0.1, "Angstroms": 0.1, "ångström": 0.1, "\u00c5": 0.1, "\u212b": 0.1,
    "A\u030a": 0.1, "inch": 2.54e7, "inches": 2.54e7, "foot": 3.048e8, "yottameter": 1e33, "dam": 1e10,
}  # fmt: skip
"""Lengths as UDUNITS writes them, in nanometres."""


@pytest.mark.parametrize("unit", NM)
def test_a_length_is_known_by_every_name_and_symbol(unit: str) -> None:
    assert length_nm(unit) == pytest.approx(NM[unit], rel=1e-12)


@pytest.mark.parametrize(
    "unit", ["", None, "second", "pixel", "MM", "nmm", "meterss", "lightyears", "reference frame", 4]
)
def test_what_is_no_length_has_none(unit: object) -> None:
    assert length_nm(unit) is None


def write_array(path: Path, zarr_format: int, attributes: dict[str, Any] | None = None, leading: int = 0) -> None:
    """Write the metadata of an array."""
    path.mkdir(parents=True)
    shape = (1,) * leading + SHAPE
    if zarr_format == 2:
        document: dict[str, Any] = {"zarr_format": 2, "shape": shape, "chunks": shape, "dtype": "|u1", "order": "C"}
        (path / ".zarray").write_text(json.dumps(document | {"compressor": None, "filters": None, "fill_value": 0}))
        (path / ".zattrs").write_text(json.dumps(attributes or {}))
        return
    document = {"zarr_format": 3, "node_type": "array", "shape": shape, "data_type": "uint8"}
    (path / "zarr.json").write_text(json.dumps(document | {"attributes": attributes or {}}))


def write_image(path: Path, zarr_format: int, multiscale: dict[str, Any]) -> Path:
    """Write the metadata of an OME-Zarr: 0.4 in Zarr 2, 0.5 in Zarr 3."""
    for dataset in multiscale["datasets"]:
        write_array(path / dataset["path"], zarr_format, leading=len(multiscale.get("axes", SHAPE)) - 3)
    if zarr_format == 2:
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps({"multiscales": [multiscale | {"version": "0.4"}]}))
    else:
        attributes = {"ome": {"version": "0.5", "multiscales": [multiscale]}}
        (path / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}))
    return path


def space(units: list[str | None], leading: int = 0) -> list[dict[str, Any]]:
    """Describe the axes of an OME-Zarr."""
    named = [{"name": name, "type": "space"} for name in "zyx"]
    axes = [axis | ({"unit": unit} if unit is not None else {}) for axis, unit in zip(named, units, strict=True)]
    return [{"name": "c", "type": "channel"}][:leading] + axes


triple = st.tuples(*[st.floats(1.5, 100)] * 3)
place = st.tuples(*[st.floats(-1e4, 1e4)] * 3)
transformations = st.fixed_dictionaries({"scale": triple}, optional={"translation": place})


@given(
    units=st.lists(st.sampled_from(["nm", "angstrom", "micrometre", "\u00b5m", "mm", "inch"]), min_size=3, max_size=3),
    zarr_format=st.sampled_from([2, 3]),
    levels=st.lists(transformations, min_size=1, max_size=3),
    whole=st.one_of(st.just({}), transformations),
    folder=st.sampled_from(["", "images/", "a/b/"]),
    leading=st.integers(0, 1),
)
def test_size_and_place_are_those_of_the_specification(
    tmp_path_factory: pytest.TempPathFactory, units, zarr_format, levels, whole, folder, leading
) -> None:
    """Of the group and of each level by its own path: voxel 0 and voxel 1 through the transformations in order."""

    def stated(parts: dict[str, Any]) -> list[dict[str, Any]]:
        first = {"scale": [7.0], "translation": [9.0]}  # of a channel axis
        return [{"type": kind, kind: first[kind][:leading] + list(parts[kind])} for kind in first if kind in parts]

    datasets = [{"path": f"{folder}s{i}", "coordinateTransformations": stated(parts)} for i, parts in enumerate(levels)]
    multiscale = {"axes": space(units, leading), "datasets": datasets, "coordinateTransformations": stated(whole)}
    path = write_image(tmp_path_factory.mktemp("v") / "v.zarr", zarr_format, multiscale)
    factors = np.array([NM[unit] for unit in units])
    for i, parts in enumerate(levels):
        points = np.array([[0.0] * 3, [1.0] * 3])
        for step in (parts, whole):
            points = points * step.get("scale", 1) + step.get("translation", 0)
        start, size = points[0] * factors, (points[1] - points[0]) * factors
        for metadata in (read_metadata(str(path), i), read_metadata(f"{path}/{folder}s{i}")):
            assert metadata.place.is_nm, metadata.place
            np.testing.assert_allclose(metadata.place.scale, size, rtol=1e-6)
            np.testing.assert_allclose(metadata.place.translation, start, rtol=1e-6, atol=1e-6 * size.max())


SCALE = [{"type": "scale", "scale": [50, 4, 4]}]


@pytest.mark.parametrize(
    ("units", "transformations", "problem"),
    [
        ([None] * 3, SCALE, "no unit of axis z"),
        (["nm", "nm", "parrot"], SCALE, "no length as the unit of axis x, but 'parrot'"),
        (["nm"] * 3, [], "state no scale"),
        (["nm"] * 3, [{"type": "scale", "scale": [50, 0, 4]}], "a scale of 50 x 0 x 4"),
        (["nm"] * 3, [{"type": "scale", "scale": [50, -4, 4]}], "a scale of 50 x -4 x 4"),
        (["nm"] * 3, [{"type": "scale", "scale": [50, float("nan"), 4]}], "a scale of 50 x nan x 4"),
        (["nm"] * 3, [{"type": "scale", "scale": [5e-8, 4e-9, 4e-9]}], "5e-08 x 4e-09 x 4e-09 nm, below 0.1 nm"),
    ],
)
def test_a_size_that_is_missing_or_impossible_is_not_known_and_the_reason_is(
    tmp_path: Path, units, transformations, problem
) -> None:
    datasets = [{"path": "0", "coordinateTransformations": transformations}]
    path = write_image(tmp_path / "v", 3, {"axes": space(units), "datasets": datasets})
    for location in (path, path / "0"):
        stated = read_metadata(str(location))
        assert (stated.voxel_nm, stated.place.translation_nm) == (None, None)
        assert problem in stated.place.problem


def test_a_transformation_that_is_neither_scale_nor_translation_is_not_ignored(tmp_path: Path) -> None:
    datasets = [{"path": "0", "coordinateTransformations": [*SCALE, {"type": "rotation", "rotation": []}]}]
    path = write_image(tmp_path / "v", 3, {"axes": space(["nm"] * 3), "datasets": datasets})
    with pytest.raises(SourceError, match="'rotation', which is neither a scale nor a translation"):
        read_metadata(str(path))
    assert "'rotation'" in read_metadata(str(path / "0")).place.problem


@pytest.mark.parametrize(
    ("attributes", "size", "start"),
    [
        ({"voxel_size": [50, 4, 4], "offset": [1000, 400, 800]}, (50, 4, 4), (1000, 400, 800)),
        ({"resolution": [40, 4, 4]}, (40, 4, 4), (0, 0, 0)),
        ({"voxel_size": [4, 4, 50], "offset": [8, 4, 100], "axis_names": ["x", "y", "z"]}, (50, 4, 4), (100, 4, 8)),
        ({"voxel_size": [50, 4, 4], "offset": [5, 4, 8], "axis_names": ["z", "y", "x"]}, (50, 4, 4), (5, 4, 8)),
        ({"voxel_size": [0.05, 0.004, 0.004], "units": ["um"] * 3}, (50, 4, 4), (0, 0, 0)),
        ({"voxel_size": [0, 4, 4]}, None, None),
        ({"voxel_size": [50, 4]}, None, None),
        ({"voxel_size": "544"}, None, None),
        ({"resolution": [float("nan"), 4, 4]}, None, None),
    ],
)
@pytest.mark.parametrize("kind", ["zarr2", "zarr3", "hdf5"])
def test_the_attributes_of_an_array_state_its_place(tmp_path: Path, attributes, size, start, kind) -> None:
    if kind == "hdf5":
        with h5py.File(tmp_path / "v.h5", "w") as file:
            file["raw"] = np.zeros(SHAPE, np.uint8)
            file["raw"].attrs.update(attributes)
        axes = tuple(attributes.get("axis_names", "zyx"))
        stated = place_of(open_readable(str(tmp_path / "v.h5"), options=ReadOptions(axes)))
    else:
        write_array(tmp_path / "v", int(kind[-1]), attributes)
        stated = read_metadata(str(tmp_path / "v")).place
    assert (stated.voxel_nm, stated.translation_nm) == (pytest.approx(size) if size else None, start)
    assert bool(stated.problem) is (size is None)


def test_a_level_keeps_its_place_below_groups_that_are_not_its_multiscale(tmp_path: Path) -> None:
    datasets = [{"path": "images/s0", "coordinateTransformations": SCALE}]
    path = write_image(tmp_path / "v", 3, {"axes": space(["nm"] * 3), "datasets": datasets})
    (path / "images" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    assert read_metadata(str(path / "images" / "s0")).voxel_nm == (50, 4, 4)


OME = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", (50, 4, 4), strict=True)} | {
    f"PhysicalSize{axis}Unit": "nm" for axis in "ZYX"
}
PLANE = {f"Position{axis}": [start] * 2 for axis, start in zip("ZYX", (1.0, 0.4, 0.8), strict=True)}
IMAGEJ = {"spacing": 0.05, "unit": "um", "axes": "ZYX"}


@pytest.mark.parametrize(
    ("options", "size", "start"),
    [
        ({"ome": True, "metadata": {"axes": "ZYX", **OME}}, (50, 4, 4), (0, 0, 0)),
        (
            {
                "ome": True,
                "metadata": {"axes": "ZYX", **OME, "Plane": PLANE | {f"Position{a}Unit": ["µm"] * 2 for a in "ZYX"}},
            },
            (50, 4, 4),
            (1000, 400, 800),
        ),
        ({"ome": True, "metadata": {"axes": "ZYX", **OME, "Plane": PLANE}}, None, None),  # in the stage's own frame
        ({"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.004, "PhysicalSizeY": 0.004}}, None, None),
        ({"imagej": True, "metadata": IMAGEJ, "resolution": (250, 200)}, (50, 5, 4), (0, 0, 0)),
        (
            {
                "imagej": True,
                "metadata": IMAGEJ | {"xorigin": -200, "yorigin": -80, "zorigin": -20},
                "resolution": (250, 200),
            },
            (50, 5, 4),
            (1000, 400, 800),
        ),
        ({"imagej": True, "metadata": IMAGEJ | {"unit": "\\u00B5m"}, "resolution": (250, 250)}, (50, 4, 4), (0, 0, 0)),
        ({"imagej": True, "metadata": {"axes": "ZYX", "unit": "um"}, "resolution": (250, 250)}, None, None),
        ({"imagej": True, "metadata": {"axes": "ZYX", "unit": "pixel", "spacing": 1}}, None, None),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None, None),
    ],
)  # fmt: skip
def test_the_tags_of_a_tiff_state_its_place(tmp_path: Path, options: dict[str, Any], size, start) -> None:
    tifffile.imwrite(tmp_path / "v.tif", np.zeros((2, 8, 8), np.uint8), photometric="minisblack", **options)
    for stated in (open_stack(tmp_path / "v.tif").place, place_of(open_readable(str(tmp_path / "v.tif")))):
        assert (stated.voxel_nm, stated.translation_nm) == (
            (None, None) if size is None else (pytest.approx(size), pytest.approx(start))
        )


def test_the_position_of_a_tiff_is_kept_in_voxels(tmp_path: Path) -> None:
    """XPosition and YPosition, in inches, of a file at 100 pixels per inch along x and 50 along y."""
    tags = [(286, 5, 1, (2, 1), True), (287, 5, 1, (3, 1), True)]
    options: dict[str, Any] = {"resolution": (100, 50), "resolutionunit": "INCH", "extratags": tags}
    tifffile.imwrite(tmp_path / "v.tif", np.zeros((2, 8, 8), np.uint8), photometric="minisblack", **options)
    volseg.convert(str(tmp_path / "v.tif"), tmp_path / "v.zarr", voxel_size=(50, 4, 4))
    assert open_volume(str(tmp_path / "v.zarr")).translation_nm == pytest.approx((0, 3 * 50 * 4, 2 * 100 * 4))


def test_another_voxel_size_keeps_the_translation_in_voxels() -> None:
    unitless = Place((0.05, 0.004, 0.004), (1, 0.4, 0.8))
    for stated in (unitless, Place.of_nm((25, 2, 2), (500, 200, 400))):
        assert stated.with_voxel_nm((50, 4, 4)).translation_nm == pytest.approx((1000, 400, 800))


def test_a_reader_of_a_plugin_may_state_a_size_only() -> None:
    assert place_of(SimpleNamespace(voxel_nm=(50, 4, 4))) == Place.of_nm((50, 4, 4))
    assert place_of(SimpleNamespace(voxel_nm=None)) == Place()
    assert place_of(SimpleNamespace(voxel_nm=(50, 0, 4))).problem
    assert place_of(SimpleNamespace(voxel_nm=(50, 4, 4), translation_nm=(1, 2, 3))).translation == (1, 2, 3)


@pytest.mark.parametrize("channels", [(), ("a", "b")])
@pytest.mark.parametrize(
    "place", [Place.of_nm((50, 4, 4)), Place.of_nm((50, 4, 4), (1000, -400, 0.5)), Place(), Place((5, 4, 4), (1, 2, 3))]
)
def test_what_is_written_is_valid_and_read_back(tmp_path: Path, place: Place, channels) -> None:
    path = tmp_path / "v.zarr"
    create_volume(path, shape=SHAPE, shard=SHAPE, chunk=SHAPE, dtype="uint8", place=place, channels=channels)
    yaozarrs.validate_zarr_store(str(path))
    multiscale: Any = zarr.open_group(path, mode="r").attrs["ome"]
    axes = multiscale["multiscales"][0]["axes"][-3:]
    assert [axis.get("unit") for axis in axes] == ["nanometer" if place.is_nm else None] * 3
    stated = read_metadata(str(path)).place
    assert (stated.scale, stated.translation, stated.is_nm) == (place.scale, place.translation, place.is_nm)


def test_convert_keeps_the_place_and_refuses_a_source_without(tmp_path: Path) -> None:
    raw = make_volume(tmp_path / "raw.zarr", SHAPE, voxel_nm=(50, 4, 4), translation_nm=(1000, 400, 800))
    volseg.convert(str(raw), tmp_path / "copy.zarr")
    assert open_volume(str(tmp_path / "copy.zarr")).place == Place.of_nm((50, 4, 4), (1000, 400, 800))
    make_volume(tmp_path / "none.zarr", SHAPE, voxel_nm=None)
    with pytest.raises(ConfigError, match=r"states no voxel size \(it states no unit of axis z\); give --voxel-size"):
        volseg.convert(str(tmp_path / "none.zarr"), tmp_path / "other.zarr")
    with pytest.raises(ConfigError, match="0.1 nm at least"):
        volseg.convert(str(tmp_path / "none.zarr"), tmp_path / "other.zarr", voxel_size=(50, 0, 4))


CASES = {
    "small/moved.zarr": ((50, 4, 4), (1000, 400, 800)),
    "oz05_trans.zarr": ((50, 4, 4), (1000, 400, 800)),
    "small/mic.zarr": ((30, 12, 12), (0, 0, 0)),
    "tif_imagej.tif": ((50, 4, 4), (0, 0, 0)),
    "tif_ome.ome.tif": ((50, 4, 4), (0, 0, 0)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_files_of_other_programs_lie_where_they_say(name: str) -> None:
    folder = Path(os.environ.get("VOLSEG_CASES", Path(__file__).parents[3] / "shared" / "cases"))
    if not (folder / name).exists():
        pytest.skip(f"no {name} in {folder}; set VOLSEG_CASES")
    stated = place_of(open_readable(str(folder / name)))
    assert stated.voxel_nm == pytest.approx(CASES[name][0])
    assert stated.translation_nm == CASES[name][1]
