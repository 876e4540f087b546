"""Membrane between ids that touch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volseg.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def boundaries(ids: NDArray[Any], width: int) -> NDArray[np.bool_]:
    """Membrane of cells whose ids touch, drawn section by section.

    A voxel is membrane if a voxel of another cell of its section lies within width // 2 voxels of it, from centre to
    centre; so a straight border is `width` voxels wide, half of them on either side. Of an odd width the voxel left
    over lies in the cell with the larger id: that choice turns with the section. A voxel of id 0 is membrane as it
    stands, and widens nothing.

    Args:
        ids: cells from 1 on, (z, y, x); 0 is membrane. Negative ids are unknown: never membrane, and no cell.
        width: of the membrane, in voxels of the section.

    Returns:
        True on membrane, (z, y, x).

    Raises:
        ConfigError: a width below 1.

    >>> import numpy as np
    >>> boundaries(np.array([[[1, 1, 1, 2, 2, 2]]]), 2).astype(int).tolist()
    [[[0, 0, 1, 1, 0, 0]]]
    >>> boundaries(np.array([[[1, 1, 1, 2, 2, 2]]]), 3).astype(int).tolist()
    [[[0, 0, 1, 1, 1, 0]]]
    """
    if width < 1:
        raise ConfigError(f"a boundary of {width} voxels is none; give a width from 1 on")
    membrane: NDArray[np.bool_] = ids == 0
    steps = _half_disc(width)
    for section, marks in zip(ids, membrane, strict=True):
        for step in steps:
            _mark(section, marks, *step)
    return membrane


def _half_disc(width: int) -> list[tuple[int, int, bool]]:
    """Steps (y, x) to the voxels near enough, one of each pair of opposites, and whether they mark both ends."""
    near = width // 2
    far = near + width % 2
    steps = [(y, x) for y in range(far + 1) for x in range(-far, far + 1) if y > 0 or x > 0]
    return [(y, x, y * y + x * x <= near * near) for y, x in steps if y * y + x * x <= far * far]


def _mark(section: NDArray[Any], marks: NDArray[np.bool_], y: int, x: int, both: bool) -> None:
    """Mark the voxels of (y, x) that are one step away from another cell; else the one with the larger id."""
    (here, there), (mark_here, mark_there) = _shifted(section, y, x), _shifted(marks, y, x)
    touching = (here != there) & (here > 0) & (there > 0)
    mark_here |= touching if both else touching & (here > there)
    mark_there |= touching if both else touching & (there > here)


def _shifted(array: NDArray[Any], y: int, x: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Views of all voxels that have a neighbour at a step, and of those neighbours."""
    rows, columns = array.shape
    kept = max(columns - abs(x), 0)
    left, right = max(-x, 0), max(x, 0)
    return array[: max(rows - y, 0), left : left + kept], array[y:, right : right + kept]
