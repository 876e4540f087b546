"""Scale between two levels of a volume: which voxels of the coarser one represent a box of the finer one."""

from __future__ import annotations

from dataclasses import dataclass

from volseg.blocks.box import Box, Zyx, zip3
from volseg.errors import GridError


@dataclass(frozen=True, slots=True)
class LevelScale:
    """Downsampling factors along each axis, as far as the shapes of two levels determine them.

    Downsampling n voxels by f leaves n / f, rounded up. For few voxels several f give the same number (30 sections
    become 2 with 15 to 29), and then all of them are taken into account.

    Attributes:
        shape: shape of the coarser level.
        min_factor: the smallest possible factor along each axis.
        max_factor: the largest.
    """

    shape: Zyx
    min_factor: Zyx
    max_factor: Zyx

    @classmethod
    def between(cls, fine: Zyx, coarse: Zyx) -> LevelScale:
        """Compute the factors between two levels.

        Raises:
            GridError: the shapes do not differ by a whole factor along each axis.

        >>> LevelScale.between((30, 512, 500), (30, 128, 125)).min_factor
        (1, 4, 4)
        >>> LevelScale.between((30, 512, 512), (2, 512, 512)).max_factor
        (29, 1, 1)
        """
        factors = [_factors(n, m) for n, m in zip3(fine, coarse)]
        if any(smallest > largest for smallest, largest in factors):
            raise GridError(f"shape {coarse} is not {fine} divided by whole numbers and rounded up, axis by axis")
        (z, y, x), (zz, yy, xx) = zip(*factors, strict=True)
        return cls(coarse, (z, y, x), (zz, yy, xx))

    def span(self, axis: int, start: int, stop: int) -> tuple[int, int]:
        """Return the voxels of the coarser level that may represent voxels of [start, stop) along an axis.

        >>> LevelScale.between((10, 64, 64), (10, 16, 16)).span(1, 30, 33)
        (7, 9)
        """
        return start // self.max_factor[axis], min(-(-stop // self.min_factor[axis]), self.shape[axis])

    def box(self, box: Box) -> Box:
        """Return the voxels of the coarser level that may represent voxels of a box."""
        spans = [self.span(axis, a, b) for axis, (a, b) in enumerate(zip3(box.start, box.stop))]
        (z, y, x), (zz, yy, xx) = zip(*spans, strict=True)
        return Box((z, y, x), (zz, yy, xx))


def _factors(fine: int, coarse: int) -> tuple[int, int]:
    """Return the smallest and the largest f with ceil(fine / f) = coarse; the smallest is larger if there is none.

    >>> _factors(30, 30), _factors(30, 8), _factors(30, 2), _factors(30, 1), _factors(30, 25), _factors(30, 31)
    ((1, 1), (4, 4), (15, 29), (30, 30), (2, 1), (1, 0))
    """
    # A single voxel may represent all, with any factor from `fine` on.
    return -(-fine // coarse), -(-fine // (coarse - 1)) - 1 if coarse > 1 else fine
