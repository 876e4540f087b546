"""Membrane between touching labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volseg.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def boundaries(ids: NDArray[Any], width: int) -> NDArray[np.bool_]:
    """Mark the membrane between cells whose ids touch, section by section.

    A voxel is membrane if a voxel of another cell of its section is within width // 2 voxels, from centre to centre; so
    a straight border is `width` voxels wide, half of them on either side. The extra voxel of an odd width is in the
    cell with the larger id, a choice that is independent of the orientation of the section. Voxels of id 0 stay
    membrane and are not widened.

    Args:
        ids: cell ids from 1 on, (z, y, x); 0 is membrane. Negative ids are unknown: neither membrane nor cell.
        width: width of the membrane, in voxels of the section.

    Returns:
        Boolean array, True on membrane, (z, y, x).

    Raises:
        ConfigError: a width below 1.

    >>> import numpy as np
    >>> boundaries(np.array([[[1, 1, 1, 2, 2, 2]]]), 2).astype(int).tolist()
    [[[0, 0, 1, 1, 0, 0]]]
    >>> boundaries(np.array([[[1, 1, 1, 2, 2, 2]]]), 3).astype(int).tolist()
    [[[0, 0, 1, 1, 1, 0]]]
    """
    if width < 1:
        raise ConfigError(f"boundary width {width} is below 1; use a width of at least 1 voxel")
    membrane: NDArray[np.bool_] = ids == 0
    steps = _half_disc(width)
    for section, mask in zip(ids, membrane, strict=True):
        for step in steps:
            _mark(section, mask, *step)
    return membrane


def _half_disc(width: int) -> list[tuple[int, int, bool]]:
    """Return the steps (y, x) within the width, one of each opposite pair, and whether they mark both ends."""
    near = width // 2
    far = near + width % 2
    steps = [(y, x) for y in range(far + 1) for x in range(-far, far + 1) if y > 0 or x > 0]
    return [(y, x, y * y + x * x <= near * near) for y, x in steps if y * y + x * x <= far * far]


def _mark(section: NDArray[Any], mask: NDArray[np.bool_], y: int, x: int, both: bool) -> None:
    """Mark voxels that are a step (y, x) away from another cell: both voxels, or the one with the larger id."""
    (first, second), (mask_first, mask_second) = _pairs(section, y, x), _pairs(mask, y, x)
    touching = (first != second) & (first > 0) & (second > 0)
    mask_first |= touching if both else touching & (first > second)
    mask_second |= touching if both else touching & (second > first)


def _pairs(array: NDArray[Any], y: int, x: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return views of the voxels that have a neighbour at a step, and of those neighbours."""
    rows, columns = array.shape
    width = max(columns - abs(x), 0)
    left, right = max(-x, 0), max(x, 0)
    return array[: max(rows - y, 0), left : left + width], array[y:, right : right + width]
