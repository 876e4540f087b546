"""Panels: layout, grey values, scale bar and refusals."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from volseg.errors import ConfigError, TargetError
from volseg.plots.panel import panel_layout, save_panel

RAW = np.full((100, 400), 80, np.uint8)


def read_png(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def center_colors(pixels, layout):
    """The colour at the centre of each image."""
    height, width = layout.image_size
    return [pixels[layout.header + height // 2, layout.left(k) + width // 2].tolist() for k in range(layout.columns)]


def test_sections_are_side_by_side_as_in_the_layout(tmp_path):
    images = [
        ("raw", RAW),
        ("truth", np.ones(RAW.shape, bool)),
        ("probability", np.full(RAW.shape, 0.2, np.float32)),
    ]
    save_panel(tmp_path / "p.png", images, title="three")
    layout = panel_layout(RAW.shape, 3, title=True)
    pixels = read_png(tmp_path / "p.png")
    assert pixels.shape[:2] == layout.size
    grey, white, faint = center_colors(pixels, layout)
    assert (grey, white, faint) == ([80] * 3, [255] * 3, [51] * 3)
    gap = pixels[layout.header :, layout.left(1) - 8]
    assert (gap == 255).all()
    assert (pixels[: layout.header] < 128).any()  # title and captions


@pytest.mark.parametrize(
    ("shape", "size"),
    [((100, 400), (100, 400)), ((64, 64), (320, 320)), ((2000, 4000), (280, 560)), ((4000, 10), (1120, 320))],
)
def test_small_sections_are_enlarged_and_large_ones_reduced(shape, size):
    assert panel_layout(shape, 1, title=False).image_size == size


def test_the_aspect_ratio_is_that_of_the_voxels(tmp_path):
    save_panel(tmp_path / "p.png", [("xz", RAW)], voxel_nm=(6, 24, 6))
    assert read_png(tmp_path / "p.png").shape[:2] == panel_layout((400, 400), 1, title=False).size


def test_the_scale_bar_has_its_length(tmp_path):
    save_panel(tmp_path / "p.png", [("raw", RAW)], voxel_nm=(30, 5, 5))
    white = (read_png(tmp_path / "p.png")[32:-14, 14:-14] == 255).all(axis=2)
    assert white.sum(axis=1).max() == 100  # 500 nm of 2 um


def test_without_a_voxel_size_there_is_no_scale_bar(tmp_path):
    save_panel(tmp_path / "p.png", [("raw", RAW)])
    layout = panel_layout(RAW.shape, 1, title=False)
    assert (read_png(tmp_path / "p.png")[layout.header : -14, 14:-14] == 80).all()


def test_16_bit_values_are_stretched_and_labels_are_coloured(tmp_path):
    ramp = np.tile(np.linspace(1000, 2000, 400).astype(np.uint16), (100, 1))
    labels = np.repeat(np.arange(4, dtype=np.uint64), 100)[None].repeat(100, axis=0)
    save_panel(tmp_path / "p.png", [("raw", ramp), ("labels", labels)])
    pixels, layout = read_png(tmp_path / "p.png"), panel_layout(RAW.shape, 2, title=False)
    row = layout.header + 50
    raw = pixels[row, layout.left(0) : layout.left(0) + 400, 0]
    assert (raw[0], raw[-1]) == (0, 255)
    assert (np.diff(raw) >= 0).all()
    colors = [tuple(pixels[row, layout.left(1) + 50 + 100 * k]) for k in range(4)]
    assert colors[0] == (0, 0, 0)
    assert len(set(colors)) == 4


@pytest.mark.parametrize("value", [0, np.nan, np.inf, 7])
def test_sections_without_contrast_are_drawn(tmp_path, value):
    save_panel(tmp_path / "p.png", [("flat", np.full((20, 20), value, np.float32))])
    assert (tmp_path / "p.png").is_file()


def test_invalid_sections_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least one"):
        save_panel(tmp_path / "p.png", [])
    with pytest.raises(ConfigError, match=r"'v' has shape \(2, 3, 4\)"):
        save_panel(tmp_path / "p.png", [("v", np.zeros((2, 3, 4)))])
    with pytest.raises(ConfigError, match="with pixels"):
        save_panel(tmp_path / "p.png", [("v", np.zeros((0, 4)))])
    with pytest.raises(TargetError, match="writable folder"):
        save_panel(tmp_path / "absent" / "p.png", [("raw", RAW)])


def test_pyplot_is_not_imported(tmp_path):
    code = (
        "import sys, pathlib, numpy as np; from volseg.plots.panel import save_panel;"
        "save_panel(pathlib.Path(sys.argv[1]), [('raw', np.zeros((9, 9), np.uint8))]);"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "p.png")], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "False"
