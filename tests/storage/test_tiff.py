"""TIFF files: axes other than sections, greys as shown, damaged files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from volseg.errors import ConfigError, SourceError
from volseg.storage import GREY, LABELS, ReadOptions, open_stack
from volseg.storage.axes import DEFAULT_OPTIONS
from volseg.testing.factories import blobs

if TYPE_CHECKING:
    from pathlib import Path

VOXELS = blobs((6, 20, 30))


def read(path: Path, options: ReadOptions = DEFAULT_OPTIONS, dtypes: tuple[str, ...] = GREY) -> np.ndarray:
    stack = open_stack(path, dtypes, options)
    return stack.read(0, stack.shape[0])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(("axes", "kind"), [("ZCYX", "channels"), ("CZYX", "channels"), ("TZYX", "times")])
def test_channels_and_times_are_not_sections(tmp_path: Path, compression: str | None, axes: str, kind: str) -> None:
    parts = np.stack([VOXELS, VOXELS[::-1]], axis=0 if axes[0] != "Z" else 1)
    tifffile.imwrite(tmp_path / "a.ome.tif", parts, metadata={"axes": axes}, compression=compression)
    with pytest.raises(SourceError, match=rf"holds 2 {kind} .*choose one of them \(0, 1\) with --channel"):
        open_stack(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(read(tmp_path / "a.ome.tif", ReadOptions(channel=0)), VOXELS)
    np.testing.assert_array_equal(read(tmp_path / "a.ome.tif", ReadOptions(channel="1")), VOXELS[::-1])
    with pytest.raises(ConfigError, match="no channel 2; choose from 0, 1"):
        open_stack(tmp_path / "a.ome.tif", options=ReadOptions(channel=2))


def test_times_or_channels_that_are_sections_are_stated_as_such(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", VOXELS, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(SourceError, match="axes t, y, x, not z, y, x; state its order with --axes z,y,x"):
        open_stack(tmp_path / "a.tif")
    np.testing.assert_array_equal(read(tmp_path / "a.tif", ReadOptions(axes=("z", "y", "x"))), VOXELS)


def test_an_imagej_stack_of_one_page_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "big.tif"
    tifffile.imwrite(path, VOXELS.astype(">u2"), imagej=True, metadata={"axes": "ZYX"})
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        first = tiff.pages.first
        end = first.offset + 2 + 12 * len(first.tags)  # above 4 GB ImageJ writes no second page
    content[end : end + 4] = b"\0\0\0\0"
    path.write_bytes(content)
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 1
    assert read(path).dtype == np.uint16
    np.testing.assert_array_equal(read(path), VOXELS)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_white_as_zero_is_read_as_shown_and_labels_as_stored(tmp_path: Path, dtype: str) -> None:
    voxels = VOXELS.astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", voxels, photometric="miniswhite")
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), np.iinfo(dtype).max - voxels)
    np.testing.assert_array_equal(read(tmp_path / "a.tif", dtypes=LABELS), voxels)


def test_a_palette_is_read_as_shown_and_labels_as_stored(tmp_path: Path) -> None:
    grey = np.arange(255, -1, -1)
    colours: Any = np.repeat(grey[None], 3, axis=0).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", VOXELS, photometric="palette", colormap=colours)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), 255 - VOXELS)
    np.testing.assert_array_equal(read(tmp_path / "a.tif", dtypes=LABELS), VOXELS)
    colours[0] = 0
    tifffile.imwrite(tmp_path / "b.tif", VOXELS, photometric="palette", colormap=colours)
    with pytest.raises(SourceError, match="palette of colours"):
        open_stack(tmp_path / "b.tif")


@pytest.mark.parametrize("written", ["imagej", "ome", "pages", "zlib"])
def test_a_file_that_is_cut_short_is_refused_in_one_line(tmp_path: Path, capfd: Any, written: str) -> None:
    path = tmp_path / "a.tif"
    kinds: dict[str, dict[str, Any]] = {
        "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}}, "ome": {"ome": True}, "pages": {"metadata": None},
        "zlib": {"compression": "zlib"},
    }  # fmt: skip
    tifffile.imwrite(path, VOXELS, photometric="minisblack", **kinds[written])
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        if (written, share) == ("imagej", 0.9):  # what is lost there describes the pages only
            np.testing.assert_array_equal(read(path), VOXELS)
            continue
        with pytest.raises(SourceError, match="copy it again") as caught:
            read(path)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
