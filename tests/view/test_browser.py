"""The viewer in a real browser, tested by its pixels."""

from __future__ import annotations

import io
import os
import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from volseg.prediction.sink import VolumeSink
from volseg.storage import Place, create_target, open_pyramid
from volseg.testing.targets import noise_record
from volseg.view import open_viewer

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-dev-shm-usage",
]
PATIENCE_S = 90
SHAPE = (8, 192, 256)

pytest.importorskip("neuroglancer", reason='needs neuroglancer: pip install "volseg[view]"')
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs Chromium at {CHROMIUM}, or named by $CHROMIUM"),
]


@pytest.fixture
def raw(make_volume):
    """Three bands from top to bottom, dark to bright."""
    voxels = np.repeat(np.array([60, 120, 180], np.uint8), 64)[None, :, None]
    return make_volume("raw.zarr", np.broadcast_to(voxels, SHAPE).copy())


@pytest.fixture
def membrane(make_volume):
    """Left half nothing, then a quarter at 0.4, then a quarter at 1."""
    voxels = np.repeat(np.array([0, 0, 102, 255], np.uint8), 64)[None, None, :]
    return make_volume("membrane.zarr", np.broadcast_to(voxels, SHAPE).copy(), by_run=True)


@pytest.fixture
def page():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser.new_page(viewport={"width": 1280, "height": 800})
        browser.close()


class Screen:
    """The image in the browser, queried by voxel."""

    def __init__(self, page, session, shot):
        self._page, self._session, self._shot = page, session, shot

    def colours(self, *places):
        """The colours at places (y, x) of the volume's section, as red, green, blue."""
        png = self._page.screenshot(path=self._shot)
        pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
        panel = self._page.locator(".neuroglancer-rendered-data-panel").first.bounding_box()
        scale = self._session.viewer.state.cross_section_scale
        colours = []
        for y, x in places:
            row = panel["y"] + panel["height"] / 2 + (y - SHAPE[1] / 2) / scale
            column = panel["x"] + panel["width"] / 2 + (x - SHAPE[2] / 2) / scale
            colours.append(pixels[round(row) - 2 : round(row) + 3, round(column) - 2 : round(column) + 3].mean((0, 1)))
        return colours

    def until(self, matches, *places):
        """Wait until the colours at the places match."""
        last = time.monotonic() + PATIENCE_S
        while time.monotonic() < last:
            if self._page.locator(".neuroglancer-rendered-data-panel").count():
                colours = self.colours(*places)
                if matches(*colours):
                    return colours
            time.sleep(0.3)
        pytest.fail(f"no match within {PATIENCE_S} s: {[colour.round() for colour in self.colours(*places)]}")


def is_grey(colour, value):
    return np.abs(colour - value).max() < 8


def is_tinted(colour):
    red, green, blue = colour
    return red > green + 40 > blue + 40


def test_raw_is_grey_membranes_are_tinted_and_the_threshold_moves_them(raw, membrane, page, tmp_path):
    urls = []
    page.on("request", lambda request: urls.append(urlsplit(request.url)))
    dark, middle, bright, faint, sure = (32, 64), (96, 64), (160, 64), (96, 160), (96, 224)
    with open_viewer([str(raw), str(membrane)]) as session:
        page.goto(session.url)
        screen = Screen(page, session, tmp_path / "viewer.png")

        def is_drawn(*colours):
            greys = all(is_grey(colour, value) for colour, value in zip(colours[:4], (0, 127, 255, 127), strict=True))
            return greys and is_tinted(colours[4])

        screen.until(is_drawn, dark, middle, bright, faint, sure)
        assert page.locator(".neuroglancer-layer-control-label", has_text="threshold").is_visible()

        with session.viewer.txn() as state:
            state.layers["membrane"].layer.shader_controls = {"threshold": 0.3}
        screen.until(
            lambda low, weak, strong: is_grey(low, 127) and is_tinted(weak) and is_tinted(strong), middle, faint, sure
        )

        with session.viewer.txn() as state:
            state.layers["membrane"].layer.shader_controls = {"threshold": 0.3, "color": "#0000ff"}
        screen.until(lambda colour: colour[2] > colour[0] + 100, sure)
    assert {url.hostname for url in urls if url.scheme.startswith("http")} == {"127.0.0.1"}


@pytest.mark.slow
def test_affinities_are_the_colours_of_one_image_under_the_raw(raw, make_volume, page, tmp_path):
    """From left to right all hold, z does not, only y does, and only x does."""
    affinities = np.array([[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]], np.uint8) * 255
    voxels = np.broadcast_to(np.repeat(affinities, 64, axis=1)[:, None, None, :], (3, *SHAPE)).copy()
    names = [f"affinity_{axis}" for axis in "zyx"]
    path = make_volume("affinities.zarr", voxels, by_run=True, channels=names)
    colours = [np.array(colour) * 255 for colour in ((1, 1, 1), (0, 1, 1), (0, 1, 0), (0, 0, 1))]
    places = [(96, x) for x in (32, 96, 160, 224)]
    grey = np.array((127, 127, 127))

    def are(*expected):
        return lambda *colours: all(np.abs(a - b).max() < 8 for a, b in zip(colours, expected, strict=True))

    with open_viewer([str(raw), str(path)]) as session:
        page.goto(session.url)
        screen = Screen(page, session, tmp_path / "viewer.png")
        screen.until(are(*[(colour + grey) / 2 for colour in colours]), *places)
        with session.viewer.txn() as state:
            state.layers["raw"].visible = False
        screen.until(are(*colours), *places)
        with session.viewer.txn() as state:
            state.layers["raw"].visible = True
            for name in names:
                state.layers[f"affinities: {name}"].visible = False
        screen.until(are(*[grey] * 4), *places)


def test_uncertainty_appears_when_it_is_asked_for(raw, make_volume, page, tmp_path):
    std = np.broadcast_to(np.repeat(np.array([0, 64], np.uint8), 128)[None, None, :], SHAPE).copy()
    path = make_volume("membrane.zarr", np.zeros(SHAPE, np.uint8), by_run=True, uncertainty=std)
    with open_viewer([str(raw), str(path)]) as session:
        page.goto(session.url)
        screen = Screen(page, session, tmp_path / "viewer.png")
        places = (96, 64), (96, 192)
        screen.until(lambda sure, unsure: is_grey(sure, 127) and is_grey(unsure, 127), *places)
        with session.viewer.txn() as state:
            state.layers["membrane uncertainty"].visible = True
        screen.until(lambda sure, unsure: is_grey(sure, 127 * 0.35) and is_tinted(unsure), *places)


def test_a_channel_of_a_plain_array_is_that_channel(raw, page, tmp_path):
    zarr = pytest.importorskip("zarr")
    voxels = np.broadcast_to(np.array([0, 255, 0], np.uint8)[:, None, None, None], (3, *SHAPE))
    names = ["c", "z", "y", "x"]
    zarr.create_array(tmp_path / "a", data=voxels.copy(), chunks=(3, 8, 64, 64), dimension_names=names)
    with open_viewer([str(raw), str(tmp_path / "a")]) as session:
        page.goto(session.url)
        screen = Screen(page, session, tmp_path / "viewer.png")
        for channel, matches in ((1, is_tinted), (0, lambda colour: is_grey(colour, 127))):
            with session.viewer.txn() as state:
                for place in range(3):
                    state.layers[f"a: {place}"].visible = place == channel
                state.layers[f"a: {channel}"].layer.shader_controls = {"color": "#ff5a1f"}
            screen.until(matches, (96, 64))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_plain_array_lies_on_the_voxels_of_its_raw(raw, page, tmp_path, zarr_format):
    zarr = pytest.importorskip("zarr")
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[:, :, 128:] = 255
    zarr.create_array(tmp_path / "membrane", data=voxels, chunks=(8, 64, 64), zarr_format=zarr_format)
    with open_viewer([str(raw), str(tmp_path / "membrane")]) as session:
        with session.viewer.txn() as state:
            state.cross_section_scale = 1 / 64  # a voxel is 64 pixels wide
        page.goto(session.url)
        screen = Screen(page, session, tmp_path / "viewer.png")
        # A voxel's centre is a whole number: the first tinted one spans 127.5 to 128.5.
        edge = (96, 127.5 - 0.1), (96, 127.5 + 0.1)
        screen.until(lambda left, right: is_grey(left, 127) and is_tinted(right), *edge)


START_NM = (1000, 400, 800)
VOXEL_NM = (50, 4, 4)
MARKER = (slice(60, 70), slice(150, 160))
"""Rows and columns of the finest level, on the voxels of the next one too."""


def marked(background, level=0):
    """A section's marker of 255, in all sections."""
    voxels = np.full((SHAPE[0], SHAPE[1] >> level, SHAPE[2] >> level), background, np.uint8)
    voxels[:, *(slice(span.start >> level, span.stop >> level) for span in MARKER)] = 255
    return voxels


@pytest.fixture
def translated(make_volume):
    """Raw EM of two levels, a map and its uncertainty of each, all with the marker, far from the origin."""
    zarr = pytest.importorskip("zarr")
    half_nm, half_start = (50, 8, 8), (1000, 402, 802)
    raw = make_volume("raw.zarr", marked(10), VOXEL_NM, START_NM)
    make_volume("coarse.zarr", marked(100, 1), half_nm, half_start).joinpath("0").rename(raw / "1")
    group, coarse = zarr.open_group(raw), zarr.open_group(raw.parent / "coarse.zarr", mode="r")
    ome, dataset = group.attrs["ome"], coarse.attrs["ome"]["multiscales"][0]["datasets"][0]
    ome["multiscales"][0]["datasets"].append(dataset | {"path": "1"})
    group.attrs["ome"] = ome
    fine = make_volume("fine.zarr", marked(0), VOXEL_NM, START_NM, by_run=True, uncertainty=marked(0))
    half = make_volume("half.zarr", marked(0, 1), half_nm, half_start, by_run=True, uncertainty=marked(0, 1))
    return [str(path) for path in (raw, raw / "1", fine, half)]


@pytest.mark.slow
def test_raw_map_and_uncertainty_of_a_translated_volume_lie_on_one_another_at_each_level(translated, page, tmp_path):
    """The marker is where its nanometres say, to a quarter of a voxel, in each layer alone and in the coarse level."""
    (top, bottom), (left, right) = ((span.start - 0.5, span.stop - 0.5) for span in MARKER)
    row, column = (top + bottom) / 2, (left + right) / 2
    inside = [(top + 0.25, column), (bottom - 0.25, column), (row, left + 0.25), (row, right - 0.25)]
    outside = [(top - 0.25, column), (bottom + 0.25, column), (row, left - 0.25), (row, right + 0.25)]
    centre_nm = (1000 + 4 * 50, 400 + row * 4, 800 + column * 4)
    names = ["raw", "raw 2", "fine", "half", "fine uncertainty", "half uncertainty"]
    with open_viewer(translated) as session:
        assert [layer.name for layer in session.viewer.state.layers] == [
            "raw", "raw 2", "fine uncertainty", "half uncertainty", "fine", "half",
        ]  # fmt: skip
        page.goto(session.url)
        screen = Screen(page, session, tmp_path / "viewer.png")
        # The middle of the window is the centre of the marker.
        places = [(y - row + SHAPE[1] / 2, x - column + SHAPE[2] / 2) for y, x in (*inside, *outside)]
        for name, render_scale in [*((name, 1) for name in names), ("raw", 64)]:
            with session.viewer.txn() as state:
                state.cross_section_scale = 1 / 32  # a voxel is 32 pixels wide
                state.position = [at / size for at, size in zip(centre_nm, VOXEL_NM, strict=True)]
                for layer in state.layers:
                    layer.visible = layer.name == name
                state.layers[name].layer.cross_section_render_scale = render_scale

            def is_drawn(*colours, coarse=render_scale > 1):
                bright, dark = np.array(colours[:4]).max(1), np.array(colours[4:]).max(1)
                return bright.min() > dark.max() + 90 and (not coarse or dark.min() > 60)

            screen.until(is_drawn, *places)
        with session.viewer.txn() as state:
            for layer in state.layers:
                layer.visible = layer.name in ("raw", "fine")
        screen.until(lambda *colours: all(map(is_tinted, colours[:4])), *places)


def test_a_marker_lies_at_the_same_nanometres_on_all_levels(page, tmp_path):
    """The levels that a run writes, each drawn by itself; the marker's edges are on whole voxels of all of them."""
    marker, levels = (slice(64, 96), slice(128, 168)), 3
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[:, *marker] = 255
    run = noise_record(SHAPE, (8, 64, 64), chunk=(8, 32, 32), levels=((1, 2, 2),) * levels)
    path = tmp_path / "map.zarr"
    create_target(path, run, Place.of_nm(VOXEL_NM, START_NM))
    pyramid = open_pyramid(path, run)
    for number in range(pyramid.grid.count):
        targets, box = pyramid.targets_of(number)
        finest = number < run.grid.count
        VolumeSink(targets).write(box, [voxels[None, *box.slices]] if finest else pyramid.downsample(number))
    fetched = set()
    page.on("request", lambda request: fetched.update(re.findall(r"/(\d)/c/", request.url)))
    (top, bottom), (left, right) = ((span.start - 0.5, span.stop - 0.5) for span in marker)
    row, column = (top + bottom) / 2, (left + right) / 2
    inside = [(top + 1, column), (bottom - 1, column), (row, left + 1), (row, right - 1)]
    outside = [(top - 1, column), (bottom + 1, column), (row, left - 1), (row, right + 1)]
    places = [(y - row + SHAPE[1] / 2, x - column + SHAPE[2] / 2) for y, x in (*inside, *outside)]
    with open_viewer([str(path)]) as session:
        with session.viewer.txn() as state:
            state.cross_section_scale = 1 / 8  # a voxel is 8 pixels wide
            state.position = [4 + 20, row + 100, column + 200]  # the translation, in voxels
        page.goto(session.url)
        screen = Screen(page, session, tmp_path / "viewer.png")
        for level in reversed(range(levels + 1)):
            with session.viewer.txn() as state:
                state.layers["map"].layer.cross_section_render_scale = 8 * 2**level

            def is_drawn(*colours, level=level):
                tinted = all(map(is_tinted, colours[:4])) and not any(map(is_tinted, colours[4:]))
                return tinted and str(level) in fetched

            screen.until(is_drawn, *places)
            assert min(map(int, fetched)) == level  # no finer level was needed
