"""Folders of sections: palettes, one-bit images, missing and doubled numbers."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image

from volseg.blocks import Box
from volseg.errors import ConfigError, SourceError
from volseg.storage import GREY, LABELS, ReadOptions, open_readable, open_stack
from volseg.storage.axes import DEFAULT_OPTIONS
from volseg.testing.factories import blobs

if TYPE_CHECKING:
    from pathlib import Path

VOXELS = blobs((8, 12, 14))


def write(folder: Path, numbers: list[int], name: str = "s_{:03d}.png") -> Path:
    """Write section n of `VOXELS` under its number."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        Image.fromarray(VOXELS[number % 8]).save(folder / name.format(number))
    return folder


def read(folder: Path, options: ReadOptions = DEFAULT_OPTIONS, dtypes: tuple[str, ...] = GREY) -> np.ndarray:
    stack = open_stack(folder, dtypes, options)
    return stack.read(0, stack.shape[0])


def test_missing_numbers_are_named_and_filled_on_demand(tmp_path: Path) -> None:
    folder = write(tmp_path / "s", [1, 2, 5, 6])
    with pytest.raises(SourceError, match=r"lacks 2 numbered sections: s_003, s_004; .*--missing blank"):
        open_stack(folder)
    nearest, blank = VOXELS[[1, 2, 2, 5, 5, 6]], VOXELS[1:7].copy()
    blank[2:4] = 0
    np.testing.assert_array_equal(read(folder, ReadOptions(missing="nearest")), nearest)
    np.testing.assert_array_equal(read(folder, ReadOptions(missing="blank")), blank)


def test_a_pattern_of_volumes_is_refused_with_what_it_matches(tmp_path: Path) -> None:
    for name in ("a.mrc", "b.mrc"):
        (tmp_path / name).touch()
    (tmp_path / "c.n5").mkdir()
    for pattern, message in (
        ("*.mrc", r"matches a.mrc, b.mrc, and no .tif, .* name a volume of another format by itself"),
        ("?.n5", r"matches c.n5, and no .tif"),
        ("z*.tif", r"nothing in .* is named z\*.tif; check the pattern"),
    ):
        with pytest.raises(SourceError, match=message):
            open_readable(str(tmp_path / pattern))


@pytest.mark.parametrize("numbers", [[7], [3, 4, 5], [0, 2, 4], [10, 20, 30], [90013, 101502, 120001]])
def test_numbers_that_lack_none(tmp_path: Path, numbers: list[int]) -> None:
    assert open_stack(write(tmp_path / "s", numbers)).shape[0] == len(numbers)


def test_one_section_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "s", [1, 2, 3])
    tifffile.imwrite(folder / "s_002.tif", VOXELS[2])
    with pytest.raises(SourceError, match=r"s_002.png and s_002.tif are the same section; move one"):
        open_stack(folder)
    (folder / "s_002.tif").unlink()
    write(folder, [3], "s_{}.png")
    with pytest.raises(SourceError, match="are the same section"):
        open_stack(folder)


def test_missing_is_refused_where_nothing_is_numbered(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", VOXELS, photometric="minisblack")
    with pytest.raises(ConfigError, match="--missing does not apply to"):
        open_readable(str(tmp_path / "a.tif"), options=ReadOptions(missing="blank"))


def test_a_palette_is_read_as_shown_and_labels_as_stored(tmp_path: Path) -> None:
    image = Image.fromarray(VOXELS[0] // 16).convert("P")
    image.putpalette([grey for index in range(256) for grey in [255 - index] * 3])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path), 255 - VOXELS[:1] // 16)
    np.testing.assert_array_equal(read(tmp_path, dtypes=LABELS), VOXELS[:1] // 16)
    image.putpalette([255, 0, 0] * 256)
    image.save(tmp_path / "a.png")
    with pytest.raises(SourceError, match="palette of colours"):
        open_stack(tmp_path)


def test_jpeg_sections_are_read_but_not_as_labels(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16), 90, np.uint8)).save(tmp_path / "a.jpg")
    assert abs(int(read(tmp_path).mean()) - 90) < 3
    with pytest.raises(SourceError, match="JPEG sections, whose values are not exact"):
        open_stack(tmp_path, LABELS)


def test_one_bit_images_are_labels(tmp_path: Path) -> None:
    Image.fromarray(VOXELS[0] > 120).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path, dtypes=LABELS), VOXELS[:1] > 120)


@pytest.mark.parametrize(
    "names",
    [
        ["z0_r0_c0", "z0_r0_c1", "z1_r0_c0", "z1_r0_c1"],
        ["s1_ch0", "s1_ch1", "s2_ch0", "s2_ch1"],
        ["raw_1", "raw_2", "labels_1", "labels_2"],
        ["s1", "s2", "s3", "thumbnail"],
        ["s1", "s2", "s2 copy", "s3"],
        ["sec9", "Sec10", "sec11", "Sec12"],
        ["z0.25", "z0.5", "z0.75", "z1.0"],
        ["z-1", "z0", "z1", "z2"],
        ["2020-01-01_1", "2020-01-02_2", "2020-01-03_4", "2020-01-04_5"],
    ],
)
def test_names_that_count_no_sections_are_refused(tmp_path: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        Image.fromarray(VOXELS[number]).save(tmp_path / f"{name}.png")
    with pytest.raises(SourceError, match="differ in more than|no number counts|decimal numbers|lacks 1 numbered"):
        open_stack(tmp_path)


@pytest.mark.parametrize(
    "names", [["a", "b", "c"], ["x_1_9", "x_2_7", "x_3_8"], ["2020-01-01_1", "2020-01-02_2"], ["9", "10"]]
)
def test_names_with_one_order_are_sections(tmp_path: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        Image.fromarray(VOXELS[number]).save(tmp_path / f"{name}.png")
    (tmp_path / "._9.png").write_bytes(b"of another system")
    (tmp_path / "sub.png").mkdir()
    np.testing.assert_array_equal(read(tmp_path), VOXELS[: len(names)])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_labels_of_few_bits_are_as_stored(tmp_path: Path, bits: int) -> None:
    ids = np.arange(32, dtype=np.uint8).reshape(4, 8) % 2**bits
    rows = np.packbits(np.unpackbits(ids[..., None], axis=-1)[..., 8 - bits :].reshape(4, -1), axis=1)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 8, 4, bits, 0, 0, 0, 0)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    np.testing.assert_array_equal(read(tmp_path, dtypes=LABELS)[0], ids)


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path) -> None:
    Image.fromarray(VOXELS[0]).save(tmp_path / "1.png", format="TIFF")
    with pytest.raises(SourceError, match="1.png is TIFF, not PNG as its name says"):
        open_stack(tmp_path)
    frames = [Image.fromarray(section) for section in VOXELS[:2]]
    frames[0].save(tmp_path / "1.png", save_all=True, append_images=frames[1:])
    with pytest.raises(SourceError, match="several pictures"):
        open_stack(tmp_path)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(VOXELS[0]).save(tmp_path / "1.png", exif=exif)
    with pytest.raises(SourceError, match="rotated or mirrored .orientation 6"):
        open_stack(tmp_path)


def test_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [1, 2])
    (tmp_path / "s_003.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(SourceError, match="s_003.png"):
        open_readable(str(tmp_path)).read(Box((0, 0, 0), (3, 8, 8)))
