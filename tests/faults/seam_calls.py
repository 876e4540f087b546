"""Which maps are called seamed by the map alone, as if another tool had written it.

A round is one crop, and its maps by volseg with auto's halo, with the exact one, with half of auto's or less;
by `dask.array.map_overlap` with a full halo; and in blocks that are normalised by their own voxels.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np

import volseg
from tests.faults.campaign import Campaign, run_campaign
from tests.faults.seam_maps import (
    ISBI,
    ISBI_TEST,
    NETWORKS,
    SNEMI,
    auto_halo,
    crop,
    forward,
    has_data,
    in_blocks,
    normalised,
    off_at_faces,
    overlapped,
    train_small,
)  # fmt: skip
from volseg.cluster import NullProgress, SerialExecutor
from volseg.config.tolerance import Tolerance
from volseg.models import read_card
from volseg.ops import to_uint8
from volseg.prediction.verification.seams import score_map
from volseg.storage import VolumeRef
from volseg.testing.factories import make_volume

if TYPE_CHECKING:
    import random
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import Zyx

OFF = 0.01
"""Share of the voxels at faces, more than 8 grey levels off, from which a map has to be called."""
EVERY = 6
"""One round in so many is of a packaged network, whose reach is larger than the crops."""
_CROPS = ("", ISBI, SNEMI)
_SHAPES: tuple[tuple[int, Zyx, Zyx], ...] = (
    (352, (8, 96, 96), (8, 64, 128)),
    (384, (8, 112, 80), (8, 96, 96)),
    (320, (4, 64, 64), (8, 80, 80)),
    (360, (8, 72, 120), (4, 100, 100)),
    (384, (8, 76, 76), (8, 128, 96)),
)
"""Side of crops, and two shapes of blocks."""
_PACKAGED = (
    ("fusionnet-isbi2012", ISBI),
    ("fusionnet-snemi3d", SNEMI),
    ("fusionnet-isbi2012", ISBI_TEST),
    ("fusionnet-snemi3d", ""),
)
_PACKAGED_HALOS = (32, 48)
_SECTIONS = 8, 12
"""Of crops for small and packaged networks."""


@dataclass(frozen=True)
class Call:
    """What was said of one map.

    Attributes:
        round: number of the round.
        kind: `halo`, `normalised` or `good`.
        how: the map was made.
        data: of the crop.
        block: shape (z, y, x).
        halo: in y and x, in voxels; 0 for one pass.
        auto: auto's halo for the crop; 0 where only a lower bound, more than twice `halo`, was measured.
        off: share of the voxels at faces that are more than 8 grey levels from one pass.
        score: of the faces in the section.
        excess: of their steps.
        seamed: whether it is called, if the block shape is known.
        searched: whether it is called if it is not.
    """

    round: int
    kind: str
    how: str
    data: str
    block: Zyx
    halo: int
    auto: int
    off: float
    score: float
    excess: float
    seamed: bool
    searched: bool

    @property
    def counts(self) -> bool:
        """Whether it is a good map or one that has to be called."""
        return self.kind == "good" or self.off >= OFF


@dataclass
class Crop:
    """A crop, its map in one pass, and what was said of its maps."""

    number: int
    data: str
    raw: NDArray[np.uint8]
    exact: NDArray[np.uint8]
    folder: Path
    calls: list[Call]
    auto: int = 0

    def call(self, kind: str, how: str, voxels: NDArray[np.uint8], block: Zyx, halo: int) -> None:
        """Note what is said of a map, with and without its block shape."""
        path = make_volume(self.folder / f"{how.replace(' ', '-')}.zarr", voxels.shape, voxels=voxels, chunk=block)
        known, found = (
            score_map(VolumeRef(str(path)), some, SerialExecutor(), NullProgress()) for some in (block, None)
        )
        data = self.data if has_data(self.data) else "phantom"
        self.calls.append(
            Call(
                round=self.number,
                kind=kind,
                how=how,
                data=data,
                block=block,
                halo=halo,
                auto=self.auto,
                off=off_at_faces(voxels, self.exact, block),
                score=known.faces[0].score,
                excess=known.faces[0].excess,
                seamed=known.is_seamed,
                searched=found.is_seamed,
            )
        )

    def predict(self, model: Path, block: Zyx, halo: str | Zyx) -> NDArray[np.uint8]:
        """Predict with volseg, in blocks."""
        lazy = volseg.membrane_probability(da.from_array(self.raw, chunks=block), str(model), halo=halo)
        return to_uint8(lazy.compute(scheduler="synchronous"))


def small_round(number: int, model: Path, folder: Path) -> list[Call]:
    """Maps of a network of small reach."""
    side, block, other = _SHAPES[number % len(_SHAPES)]
    exact = read_card(str(model)).card.footprint.exact_halo()[1]
    crop_of = _crop(number, _CROPS[number // 2 % len(_CROPS)], str(model), side, _SECTIONS[0], folder, exact)
    crop_of.auto = auto = auto_halo(str(model), crop_of.raw, block)
    crop_of.call("good", "volseg auto", crop_of.predict(model, block, (0, auto, auto)), block, auto)
    if number % 3:
        crop_of.call("good", "map_overlap", overlapped(str(model), crop_of.raw, other, exact), other, exact)
    else:
        crop_of.call("good", "volseg exact", crop_of.predict(model, other, "exact"), other, exact)
    stride = read_card(str(model)).card.footprint.stride[1]
    half = auto // 2 // stride * stride - (number // 4 % 2) * stride
    crop_of.call("halo", "volseg half", crop_of.predict(model, block, (0, half, half)), block, half)
    own = ("read", "write")[number % 2]
    block = ((2, 4, 8)[number % 3], *other[1:])
    crop_of.call("normalised", f"own {own}", in_blocks(str(model), crop_of.raw, block, exact, own), block, exact)
    return crop_of.calls


def packaged_round(number: int, folder: Path) -> list[Call]:
    """Maps of a packaged network."""
    turn = number // EVERY
    model, data = _PACKAGED[turn % len(_PACKAGED)]
    halo, side = _PACKAGED_HALOS[turn % len(_PACKAGED_HALOS)], (288, 304)[turn % 2]
    crop_of = _crop(number, data, model, side, _SECTIONS[1], folder)
    block = (_SECTIONS[1], *((80, 96, 64)[turn % 3],) * 2)
    crop_of.call("good", "one pass", crop_of.exact, block, 0)
    wider = in_blocks(model, crop_of.raw[:2], block, 2 * halo)
    apart = np.abs(wider.astype(int) - crop_of.exact[:2])
    assert not Tolerance().holds(float((apart <= 1).mean()), float(apart.max())), f"auto may be {2 * halo} or less"
    crop_of.call("halo", "half", in_blocks(model, crop_of.raw, block, halo), block, halo)
    crop_of.call("normalised", "own read", in_blocks(model, crop_of.raw, block, 64, "read"), block, 64)
    return crop_of.calls


def _crop(number: int, data: str, model: str, side: int, sections: int, folder: Path, halo: int = 0) -> Crop:
    """A crop, and its map in one pass, mirrored by `halo` voxels in y and x."""
    raw = crop(data, 9000 + number, side, sections)
    grey = np.pad(normalised(raw), ((0, 0), (halo, halo), (halo, halo)), mode="reflect")
    whole = forward(model, grey)[:, halo : halo + side, halo : halo + side]
    return Crop(number, data, raw, to_uint8(whole), folder, [])


def calls_of(number: int, folder: Path) -> list[Call]:
    """Make the maps of a round, and call each; `folder` holds the networks of `train_small`."""
    place = folder / f"round-{number}"
    place.mkdir()
    if number % EVERY == EVERY - 1:
        return packaged_round(number, place)
    return small_round(number, folder / f"{tuple(NETWORKS)[number % len(NETWORKS)]}.safetensors", place)


def judged(calls: list[Call]) -> Counter[str]:
    """Count maps.

    Raises:
        AssertionError: a good one was called, or one with seams was not.
    """
    wrong = [one for one in calls if one.counts and one.seamed != (one.kind != "good")]
    wrong += [one for one in calls if one.kind == "good" and (one.searched or one.off >= OFF)]
    assert not wrong, wrong
    counts = Counter(f"{one.kind}, {one.how}" for one in calls if one.counts)
    counts.update(f"{one.kind}" for one in calls if one.counts)
    counts.update(f"{one.kind}, called without the block shape" for one in calls if one.counts and one.searched)
    counts.update("too few voxels off" for one in calls if not one.counts)
    return counts


def all_calls(seed: int, rounds: int, folder: Path) -> list[Future[list[Call]]]:
    """The calls of rounds, which two processes make."""
    pool = ProcessPoolExecutor(2, get_context("spawn"))
    list(pool.map(train_small, [folder / f"{kind}.safetensors" for kind in NETWORKS], NETWORKS))
    made = [pool.submit(calls_of, number, folder) for number in range(seed, seed + rounds)]
    pool.shutdown(wait=False)
    return made


def campaign(seed: int, rounds: int, folder: Path) -> Campaign:
    """Call the maps of `rounds` crops."""
    made = iter(all_calls(seed, rounds, folder))

    def play(_: random.Random, __: Path) -> Counter[str]:
        return judged(next(made).result())

    return run_campaign("seam_calls", seed, rounds, folder, play)
