"""However a volume is stored in Zarr, its voxels are zarr's own, and its place is that which another reader finds."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any

import ngff_zarr
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, GzipCodec, TransposeCodec, ZstdCodec

from volseg.blocks import Box
from volseg.storage import GREY, LABELS, ReadOptions, open_readable

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (5, 9, 14)
VOXELS = np.random.default_rng(0).integers(0, 200, SHAPE)
NM = {"nanometer": 1.0, "micrometer": 1e3, "angstrom": 0.1, "millimeter": 1e6}
TYPES = sorted({*GREY, *LABELS} - {"bool"})
CODECS: dict[int, list[Any]] = {
    2: [None, {"id": "zlib", "level": 1}, {"id": "blosc", "cname": "lz4"}, {"id": "zstd", "level": 1}, {"id": "bz2"}],
    3: [None, GzipCodec(level=1), BloscCodec(cname="lz4"), ZstdCodec(level=1)],
}


@st.composite
def stored_forms(draw: st.DrawFn) -> dict[str, Any]:
    """One way to store `VOXELS`."""
    zarr_format = draw(st.sampled_from([2, 3]))
    space = draw(st.sampled_from([*permutations("zyx")]))
    other = draw(st.sampled_from([None, "c", "t"]))
    place = draw(st.integers(0, 3)) if other else 0
    return {
        "zarr_format": zarr_format,
        "axes": (*space[:place], other, *space[place:]) if other else space,
        "others": draw(st.sampled_from([1, 3])),
        "dtype": draw(st.sampled_from(TYPES)),
        "byte_order": draw(st.sampled_from("<>")),
        "order": draw(st.sampled_from("CF")),
        "separator": draw(st.sampled_from("./")),
        "codec": draw(st.sampled_from(CODECS[zarr_format])),
        "shard": zarr_format == 3 and draw(st.booleans()),
        "units": draw(st.lists(st.sampled_from(sorted(NM)), min_size=3, max_size=3)),
        "size": draw(st.lists(st.floats(1.5, 100), min_size=3, max_size=3)),
        "translation": draw(st.none() | st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3)),
    }


def write(path: Path, form: dict[str, Any]) -> None:
    """Write an OME-Zarr; its channel or time n holds the voxels plus n."""
    axes, version = form["axes"], form["zarr_format"]
    stored = np.stack([VOXELS + n for n in range(form["others"])])
    names = "".join("o" if axis in "ct" else axis for axis in axes)
    stored = np.einsum(f"ozyx->{names}", stored) if "o" in names else np.einsum(f"zyx->{names}", VOXELS)
    chunks = tuple(min(n, 4) for n in stored.shape)
    dtype = np.dtype(form["dtype"]).newbyteorder(form["byte_order"])
    options: dict[str, Any] = {
        "chunk_key_encoding": {"name": "v2" if version == 2 else "default", "separator": form["separator"]}
    }
    if version == 2:
        options["order"] = form["order"]
    else:
        options["shards"] = tuple(2 * n for n in chunks) if form["shard"] else None
        options["dimension_names"] = axes
        backwards = TransposeCodec(order=tuple(reversed(range(stored.ndim))))
        options["filters"] = [backwards] if form["order"] == "F" else None
        options["serializer"] = zarr.codecs.BytesCodec(endian="big" if form["byte_order"] == ">" else "little")
    group = zarr.open_group(path, mode="w", zarr_format=version)
    array = group.create_array(
        "s0", shape=stored.shape, chunks=chunks, dtype=dtype, compressors=form["codec"], fill_value=0, **options
    )
    array[:] = stored.astype(form["dtype"])
    multiscale = multiscale_of(form)
    if version == 2:
        group.attrs["multiscales"] = [multiscale | {"version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}


def multiscale_of(form: dict[str, Any]) -> dict[str, Any]:
    """Describe the axes and the place."""
    axes = form["axes"]
    number = dict(zip("zyx", range(3), strict=True))

    def along(values: Any, other: float) -> list[float]:
        return [other if axis in "ct" else values[number[axis]] for axis in axes]

    moves = [{"type": "scale", "scale": along(form["size"], 1.0)}]
    if form["translation"]:
        moves.append({"type": "translation", "translation": along(form["translation"], 0.0)})
    kinds = {"c": {"type": "channel"}, "t": {"type": "time"}}
    described = [
        {"name": axis} | (kinds.get(axis) or {"type": "space", "unit": form["units"][number[axis]]}) for axis in axes
    ]
    return {"name": "v", "axes": described, "datasets": [{"path": "s0", "coordinateTransformations": moves}]}


def describe(path: Path) -> Path:
    """Write the metadata of an OME-Zarr with an uncompressed array: the other reader lacks some codecs."""
    source, copy = zarr.open_group(path, mode="r"), path.parent / "described.zarr"
    group = zarr.open_group(copy, mode="w", zarr_format=source.metadata.zarr_format, attributes=source.attrs.asdict())
    group.create_array("s0", shape=zarr.open_array(path / "s0", mode="r").shape, dtype="uint8", compressors=None)
    return copy


@settings(max_examples=60)
@given(form=stored_forms(), corner=st.tuples(*[st.integers(-4, 4)] * 3), whole=st.booleans())
def test_voxels_are_those_of_zarr_and_the_place_that_of_another_reader(
    tmp_path_factory: pytest.TempPathFactory, form: dict[str, Any], corner: tuple[int, int, int], whole: bool
) -> None:
    path = tmp_path_factory.mktemp("stored") / "v.zarr"
    write(path, form)
    axes = form["axes"]
    has_channel = len(axes) == 4 and form["others"] > 1
    order = tuple(axis for axis in axes if axis in "zyx")
    options = ReadOptions(None if order == ("z", "y", "x") else axes, form["others"] - 1 if has_channel else None)
    volume = open_readable(str(path if whole else path / "s0"), (*GREY, *LABELS), options)

    stored = np.asarray(zarr.open_array(path / "s0", mode="r")[:])
    names = "".join("o" if axis in "ct" else axis for axis in axes)
    expected = np.einsum(f"{names}->{'o' if 'o' in names else ''}zyx", stored)
    expected = expected[-1] if "o" in names else expected
    assert (volume.shape, volume.dtype) == (SHAPE, form["dtype"])
    read = volume.read(Box(corner, tuple(n + c for n, c in zip(SHAPE, corner, strict=True))))
    padded = np.pad(expected.astype(form["dtype"]), 4, mode="reflect")
    index = tuple(slice(4 + c, 4 + c + n) for n, c in zip(SHAPE, corner, strict=True))
    np.testing.assert_array_equal(read, padded[index])
    assert read.dtype.isnative

    image: Any = ngff_zarr.from_ngff_zarr(str(describe(path))).images[0]
    factors = [NM[image.axes_units[axis]] for axis in "zyx"]
    sizes = [image.scale[axis] * factor for axis, factor in zip("zyx", factors, strict=True)]
    starts = [image.translation.get(axis, 0.0) * factor for axis, factor in zip("zyx", factors, strict=True)]
    assert volume.voxel_nm == pytest.approx(sizes)
    assert volume.translation_nm == pytest.approx(starts)
