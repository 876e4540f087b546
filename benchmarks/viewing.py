"""How long Neuroglancer takes to show a large map in headless Chromium, with coarser levels and without.

python -m benchmarks.viewing --pictures FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.record import record
from volseg.blocks import level_factors
from volseg.prediction.sink import VolumeSink
from volseg.storage import Place, create_target, open_pyramid
from volseg.testing.factories import blobs
from volseg.testing.targets import noise_record
from volseg.view import open_viewer

if TYPE_CHECKING:
    from volseg.blocks import Zyx

SHAPE, BLOCK, CHUNK = (16, 10_240, 10_240), (16, 1024, 1024), (16, 128, 128)
VOXEL_NM = (30.0, 6.0, 6.0)
LIMIT_S = 60.0
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
         "--disable-dev-shm-usage"]  # fmt: skip
_READY = """(scale) => {
  const viewer = window.viewer;
  if (!viewer || !viewer.isReady || Math.abs(viewer.navigationState.zoomFactor.value / scale - 1) > 1e-3) return false;
  const shown = document.body.innerText.match(/(\\d+)\\/(\\d+)/);
  return viewer.isReady() && !!shown && shown[1] === shown[2] && Number(shown[1]) > 0;
}"""
"""Whether a page has the scale, and all chunks in view of a layer whose tab tells their number."""
_SETTLED = 4
"""So many looks in a row that find a page complete: chunks are asked for a frame after the scale has changed."""


def make_map(path: Path, levels: tuple[Zyx, ...]) -> Path:
    """Write a map of smooth tissue that is different in each block."""
    run = noise_record(SHAPE, BLOCK, chunk=CHUNK, levels=levels)
    create_target(path, run, Place.of_nm(VOXEL_NM))
    pyramid, tissue = open_pyramid(path, run), blobs(BLOCK)
    for number in range(pyramid.grid.count):
        targets, box = pyramid.targets_of(number)
        if number < run.grid.count:
            voxels = [np.roll(tissue, 97 * number, axis=number % 3)[None, :, : box.shape[1], : box.shape[2]]]
        else:
            voxels = pyramid.downsample(number)
        VolumeSink(targets).write(box, voxels)
    for target in pyramid.targets:
        target.remove_partials()
    return path


class LateError(Exception):
    """A page that was not complete in time."""


def seconds_until_complete(page: Any, session: Any, scale: float, picture: Path | None) -> float:
    """Show the middle at voxels of level 0 a pixel; returns the seconds until all that is in view is loaded."""
    started = time.perf_counter()
    with session.viewer.txn() as state:
        state.cross_section_scale = scale
    complete, seconds = 0, 0.0
    while complete < _SETTLED:
        now = time.perf_counter() - started
        if page.evaluate(_READY, scale):
            complete, seconds = complete + 1, seconds if complete else now
        elif now > LIMIT_S:
            raise LateError
        else:
            complete = 0
        page.wait_for_timeout(50)
    if picture is not None:
        page.screenshot(path=picture)
    return seconds


def measure(path: Path, pictures: Path | None) -> dict[str, float | None]:
    """Seconds from the opening of the page, whole and then zoomed in; None if it took longer than a minute."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - an extra

    figures: dict[str, float | None] = {}
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as started, open_viewer([str(path)]) as session:
        browser = started.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(session.url)
        page.wait_for_function("() => !!window.viewer", timeout=1000 * LIMIT_S)
        for name, scale in (("whole", SHAPE[1] / 700), ("tenth", SHAPE[1] / 7000), ("voxels", 1.0)):
            picture = None if pictures is None else pictures / f"{path.stem}-{name}.png"
            try:
                figures[name] = round(seconds_until_complete(page, session, scale, picture), 2)
            except LateError:
                figures[name] = None
                if picture is not None:
                    page.screenshot(path=picture)
        browser.close()
    return figures


def main() -> None:
    """Write two maps, show both, record, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, help="folder for screenshots")
    chosen = parser.parse_args()
    if chosen.pictures is not None:
        chosen.pictures.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"shape": SHAPE, "block": BLOCK, "chunk": CHUNK}
    with tempfile.TemporaryDirectory() as folder:
        for name, levels in (("levels", level_factors(SHAPE, BLOCK, VOXEL_NM)), ("level-0", ())):
            figures[name] = measure(make_map(Path(folder) / f"{name}.zarr", levels), chosen.pictures)
    sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{record('viewing', figures)}\n")


if __name__ == "__main__":
    main()
