from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from volseg.errors import ConfigError, TargetError
from volseg.plots.panel import panel_layout, save_panel, tinted

RAW = np.full((100, 400), 80, np.uint8)


def picture(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def middles(pixels, layout):
    """The colour in the middle of each section."""
    height, width = layout.section
    return [pixels[layout.head + height // 2, layout.left(k) + width // 2].tolist() for k in range(layout.columns)]


def test_sections_stand_side_by_side_where_the_layout_says(tmp_path):
    columns = [
        ("raw", RAW),
        ("truth", np.ones(RAW.shape, bool)),
        ("probability", np.full(RAW.shape, 0.2, np.float32)),
        ("overlay", tinted(RAW, np.ones(RAW.shape, np.float32))),
    ]
    save_panel(tmp_path / "p.png", columns, title="four")
    layout = panel_layout(RAW.shape, 4, title=True)
    pixels = picture(tmp_path / "p.png")
    assert pixels.shape[:2] == layout.size
    grey, white, faint, coloured = middles(pixels, layout)
    assert (grey, white, faint) == ([80] * 3, [255] * 3, [51] * 3)
    assert coloured[0] > coloured[1] > coloured[2]
    gap = pixels[layout.head :, layout.left(1) - 8]
    assert (gap == 255).all()
    assert (pixels[: layout.head] < 128).any()  # title and captions


@pytest.mark.parametrize(
    ("shape", "section"),
    [((100, 400), (100, 400)), ((64, 64), (320, 320)), ((2000, 4000), (280, 560)), ((4000, 10), (1120, 320))],
)
def test_small_sections_are_enlarged_and_large_ones_reduced(shape, section):
    assert panel_layout(shape, 1, title=False).section == section


def test_voxels_are_as_tall_as_they_are(tmp_path):
    save_panel(tmp_path / "p.png", [("xz", RAW)], voxel_nm=(6, 24, 6))
    assert picture(tmp_path / "p.png").shape[:2] == panel_layout((400, 400), 1, title=False).size


def test_the_scale_bar_has_its_length(tmp_path):
    save_panel(tmp_path / "p.png", [("raw", RAW)], voxel_nm=(30, 5, 5))
    white = (picture(tmp_path / "p.png")[32:-14, 14:-14] == 255).all(axis=2)
    assert white.sum(axis=1).max() == 100  # 500 nm of 2 um


def test_without_a_voxel_size_there_is_no_scale_bar(tmp_path):
    save_panel(tmp_path / "p.png", [("raw", RAW)])
    layout = panel_layout(RAW.shape, 1, title=False)
    assert (picture(tmp_path / "p.png")[layout.head : -14, 14:-14] == 80).all()


def test_sixteen_bits_are_stretched_and_labels_coloured(tmp_path):
    ramp = np.tile(np.linspace(1000, 2000, 400).astype(np.uint16), (100, 1))
    labels = np.repeat(np.arange(4, dtype=np.uint64), 100)[None].repeat(100, axis=0)
    save_panel(tmp_path / "p.png", [("raw", ramp), ("labels", labels)])
    pixels, layout = picture(tmp_path / "p.png"), panel_layout(RAW.shape, 2, title=False)
    row = layout.head + 50
    raw = pixels[row, layout.left(0) : layout.left(0) + 400, 0]
    assert (raw[0], raw[-1]) == (0, 255)
    assert (np.diff(raw) >= 0).all()
    colours = [tuple(pixels[row, layout.left(1) + 50 + 100 * k]) for k in range(4)]
    assert colours[0] == (0, 0, 0)
    assert len(set(colours)) == 4


@pytest.mark.parametrize("value", [0, np.nan, np.inf, 7])
def test_sections_without_contrast_are_drawn(tmp_path, value):
    save_panel(tmp_path / "p.png", [("flat", np.full((20, 20), value, np.float32))])
    assert (tmp_path / "p.png").is_file()


def test_only_what_reaches_the_threshold_is_tinted():
    raw, probability = np.array([[9, 9, 9]], np.uint8), np.array([[0, 100, 200]], np.uint8)
    assert tinted(raw, probability)[0, :2].tolist() == [[9] * 3] * 2
    assert tinted(raw, probability, threshold=0.3)[0, 1, 0] > 9


def test_a_map_of_another_section_is_not_laid_over():
    with pytest.raises(ConfigError, match="same section"):
        tinted(RAW, np.zeros((3, 3), np.float32))


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least one"):
        save_panel(tmp_path / "p.png", [])
    with pytest.raises(ConfigError, match=r"'v' has shape \(2, 3, 4\)"):
        save_panel(tmp_path / "p.png", [("v", np.zeros((2, 3, 4)))])
    with pytest.raises(ConfigError, match="holds no pixel"):
        save_panel(tmp_path / "p.png", [("v", np.zeros((0, 4)))])
    with pytest.raises(TargetError, match="choose a folder"):
        save_panel(tmp_path / "absent" / "p.png", [("raw", RAW)])


def test_pyplot_is_left_alone(tmp_path):
    code = (
        "import sys, pathlib, numpy as np; from volseg.view import save_panel;"
        "save_panel(pathlib.Path(sys.argv[1]), [('raw', np.zeros((9, 9), np.uint8))]);"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "p.png")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
