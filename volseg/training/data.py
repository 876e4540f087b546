"""Labelled volumes, and random patches of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import Box
from volseg.errors import TrainingError
from volseg.ops import mirrored, normalize
from volseg.storage import GREY, LABELS, is_stack, open_stack, open_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.blocks import Footprint, Zyx, ZyxFloat
    from volseg.ops import Normalization
    from volseg.training.settings import DataSettings


_SIDES = ("fit.patch_sections", "fit.patch", "fit.patch")


@dataclass(frozen=True)
class LabelledVolume:
    """Grey values and what is membrane in them, both (z, y, x).

    Attributes:
        raw: grey values, in their own type.
        membrane: True on membrane.
        voxel_nm: voxel size (z, y, x) in nanometres.
    """

    raw: NDArray[Any]
    membrane: NDArray[np.bool_]
    voxel_nm: ZyxFloat

    def sections(self, first: int, stop: int) -> LabelledVolume:
        """Sections [first, stop) alone.

        Raises:
            TrainingError: there are no such sections.
        """
        if not 0 <= first < stop <= len(self.raw):
            raise TrainingError(f"sections {first} to {stop} are not in a volume of {len(self.raw)}; choose within it")
        return LabelledVolume(self.raw[first:stop], self.membrane[first:stop], self.voxel_nm)


def load_labelled(data: DataSettings) -> LabelledVolume:
    """Read raw and labels into memory and check that they belong together.

    Raises:
        SourceError: a volume that cannot be read.
        TrainingError: shapes that differ, labels of one kind only, or no voxel size.
    """
    raw, stated_nm = _read(data.raw, GREY)
    labels, _ = _read(data.labels, LABELS)
    if raw.shape != labels.shape:
        raise TrainingError(
            f"raw {data.raw} is {raw.shape}, labels {data.labels} are {labels.shape}; they must be alike"
        )
    if raw.dtype.kind == "f" and not np.isfinite(raw).all():
        raise TrainingError(f"{data.raw} holds NaN or infinity; repair it before training")
    voxel_nm = data.voxel_nm or stated_nm
    if voxel_nm is None:
        raise TrainingError(f"{data.raw} states no voxel size; give data.voxel_nm = [Z, Y, X] in nanometres")
    volume = LabelledVolume(raw, labels == 0 if data.membrane == "zero" else labels != 0, voxel_nm)
    for name, sections in (("train", data.train), ("validation", data.validation)):
        share = None if sections is None else float(volume.sections(*sections).membrane.mean())
        if share in (0.0, 1.0):
            raise TrainingError(
                f"labels {data.labels} call {share:.0%} of the sections of data.{name} {sections} membrane; "
                'check them and data.membrane ("zero" or "nonzero")'
            )
    return volume


def _read(location: str, dtypes: tuple[str, ...]) -> tuple[NDArray[Any], ZyxFloat | None]:
    path = Path(location)
    if "://" not in location and path.exists() and is_stack(path):
        stack = open_stack(path, dtypes)
        return stack.read(0, stack.shape[0]), None
    volume = open_volume(location, dtypes)
    return volume.read(Box.of_shape(volume.shape)), volume.voxel_nm


class PatchSampler:
    """Random patches in random orientations, as float32 inputs and targets.

    What is scored is the network's whole output for one patch: unpadded networks see their margin around it,
    mirrored where it leaves the section.
    """

    def __init__(
        self, volume: LabelledVolume, normalization: Normalization, footprint: Footprint, patch: Zyx, seed: int
    ) -> None:
        """Normalise the volume once.

        Args:
            volume: what to draw from.
            normalization: how the network's input is made.
            footprint: the network's.
            patch: what is scored, voxels along (z, y, x); rounded up to a size that an unpadded network makes. A 2-D
                network scores one section, and may see its neighbours.
            seed: of places and orientations.

        Raises:
            TrainingError: a patch that the network cannot take.
        """
        for name, side, stride, margin in zip(_SIDES, patch, footprint.stride, footprint.margin, strict=True):
            if not margin and side % stride:
                raise TrainingError(
                    f"{name} {side} is off the network's stride {stride}; use {-(-side // stride) * stride}"
                )
        if footprint.dimensions == 2 and patch[0] != 1:
            raise TrainingError(
                f"fit.patch_sections {patch[0]} is for 3-D networks; this one scores one section: leave it"
            )
        self._raw = normalize(volume.raw, normalization.statistics_of(volume.raw))
        self._membrane = volume.membrane.astype(np.float32)
        self._margin = footprint.margin
        z, y, x = (
            n - 2 * m for n, m in zip(footprint.input_shape(patch, footprint.margin), footprint.margin, strict=True)
        )
        self._scored = (z, y, x)
        self._flat = footprint.dimensions == 2
        self._random = np.random.default_rng(seed)

    def batch(self, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Draw inputs (size, sections, y, x) and their targets (size, 1, y', x'), 1 on membrane.

        For a 3-D network they are (size, 1, z, y, x) and (size, 1, z', y', x').
        """
        pairs = [self._pair() for _ in range(size)]
        inputs, targets = np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])
        return (inputs, targets) if self._flat else (inputs[:, None], targets[:, None])

    def _pair(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        z, y, x = (
            int(self._random.integers(0, max(n - side, 0) + 1))
            for n, side in zip(self._raw.shape, self._scored, strict=True)
        )
        scored = Box((z, y, x), (z + self._scored[0], y + self._scored[1], x + self._scored[2]))
        seen = scored.grown(self._margin)
        quarter_turns, flip = int(self._random.integers(4)), bool(self._random.integers(2))
        return (
            oriented(mirrored(self._raw, seen.start, seen.stop), quarter_turns, flip=flip),
            oriented(mirrored(self._membrane, scored.start, scored.stop), quarter_turns, flip=flip),
        )


def oriented(section: NDArray[Any], quarter_turns: int, *, flip: bool) -> NDArray[Any]:
    """One of the eight orientations of (..., y, x).

    >>> oriented(np.array([[1, 2], [3, 4]]), 1, flip=False).tolist()
    [[2, 4], [1, 3]]
    """
    turned = np.rot90(section, quarter_turns, axes=(-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if flip else turned)
