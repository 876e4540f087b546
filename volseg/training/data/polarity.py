"""Labels whose membrane and cells are probably exchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volseg.training.data.sample import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.training.data.volumes import LabelledVolume

_SECTIONS = 8
_MAX_SHARE = 0.5


def polarity_warnings(volumes: Sequence[LabelledVolume]) -> list[str]:
    """One line for each volume of whose known voxels more than half are membrane, in a few of its training sections."""
    shares = [(volume, _membrane_share(volume)) for volume in volumes if volume.encoding.kind == "membrane"]
    return [
        f"{volume.labels.location}: {share:.0%} of the labelled voxels are membrane with data.membrane = "
        f'"{volume.encoding.membrane}"; if that is too many, choose another ("zero", "nonzero" or "boundaries")'
        for volume, share in shares
        if share > _MAX_SHARE
    ]


def _membrane_share(volume: LabelledVolume) -> float:
    sections = [z for first, stop in volume.train for z in range(first, stop)]
    membrane = known = 0
    for z in sections[:: max(1, len(sections) // _SECTIONS)]:
        labels = volume.read_labels(volume.section_box(z, z + 1))
        membrane += int((labels == 1).sum())
        known += int((labels != IGNORED).sum())
    return membrane / max(known, 1)
