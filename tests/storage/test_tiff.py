"""TIFF files: axes other than sections, greys as shown, damaged files."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
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
        with pytest.raises(SourceError, match="copy it again") as caught:
            read(path)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("page", "setting"),
    [
        ({"photometric": "miniswhite"}, "photometric"),
        ({"compression": "zlib", "predictor": True}, "predictor"),
        ({"compression": "lzw"}, "compression"),
        ({"data": VOXELS[0].astype(np.int8)}, "dtype|sampleformat"),
    ],
)
def test_a_page_that_is_stored_unlike_the_first_is_named(tmp_path: Path, page: dict[str, Any], setting: str) -> None:
    """tifffile looks at pages 0, 1, 7 and the last one only."""
    common: dict[str, Any] = {"photometric": "minisblack", "compression": "zlib", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for number in range(12):
            options = common | (page if number == 3 else {})
            writer.write(options.pop("data", VOXELS[0]), **options)
    with pytest.raises(SourceError, match=rf"has ({setting}) .* in page 3, but .* in page 0"):
        open_stack(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", ["jpeg", "lzw", "zlib", None])
def test_no_cut_file_is_read(tmp_path: Path, compression: str | None) -> None:
    """Decoders of JPEG and LZW fill what is missing; a cut within the chain of pages gives fewer pages."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VOXELS, photometric="minisblack", compression=compression, metadata=None)
    whole = path.read_bytes()
    for length in range(8, len(whole), max(1, len(whole) // 97)):
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError, match="a.tif"):
            read(path)


def test_a_chain_of_pages_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for section in VOXELS:
            writer.write(section, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as tiff:
        offsets = [page.offset for page in tiff.pages]
        tags = len(tiff.pages[3].tags) if isinstance(tiff.pages[3], tifffile.TiffPage) else len(tiff.pages.first.tags)
    content = bytearray(path.read_bytes())
    place = offsets[3] + 2 + 12 * tags
    assert int.from_bytes(content[place : place + 4], "little") == offsets[4]
    for following in (0, offsets[0], len(content) + 8):
        content[place : place + 4] = following.to_bytes(4, "little")
        path.write_bytes(content)
        if following:
            with pytest.raises(SourceError, match="a.tif"):
                open_stack(path)
    path.write_bytes(content[:place])
    with pytest.raises(SourceError, match="a.tif"):
        open_stack(path)


def test_a_rotated_file_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", VOXELS, photometric="minisblack", extratags=[(274, 3, 1, 3, True)])
    with pytest.raises(SourceError, match="shown rotated or mirrored .orientation 3"):
        open_stack(tmp_path / "a.tif")


def test_lossy_labels_and_a_file_that_changes_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", VOXELS, photometric="minisblack", compression="jpeg")
    with pytest.raises(SourceError, match="not exact"):
        open_stack(tmp_path / "a.tif", LABELS)
    stack = open_stack(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", VOXELS[:4], photometric="minisblack")
    with pytest.raises(SourceError, match="has changed since it was opened"):
        stack.read(0, 4)


def test_a_damaged_file_does_not_disturb_other_threads(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "good.tif", VOXELS, photometric="minisblack")
    (tmp_path / "bad.tif").write_bytes((tmp_path / "good.tif").read_bytes()[:1500])
    logger = logging.getLogger("tifffile")

    def attempt(number: int) -> bool:
        try:
            read(tmp_path / ("bad.tif" if number % 2 else "good.tif"))
        except SourceError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(attempt, range(80))) == [True, False] * 40
    assert logger.propagate
    assert not logger.handlers
