"""Laws of volseg as functions, for tests of networks and other plug-ins; none needs pytest."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.api import load_model, predict
from volseg.blocks import Zyx, ceil_to

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volseg.models.model import Model

_STEP = 1 / 255
"""Probability of one grey level."""


def assert_no_seams(
    model: str | Path,
    raw: NDArray[Any],
    *,
    blocks: Sequence[Zyx] | None = None,
    max_fraction: float = 0.0,
) -> None:
    """Assert that predictions in blocks equal one pass over the whole mirrored volume, within float32 rounding.

    Each blocking runs through `volseg.predict` on the CPU with an exact halo, in float32, in a temporary folder.

    Args:
        model: model file or name of a packaged model; one of its classes is `membrane`.
        raw: grey values (z, y, x), uint8, uint16, int16 or float32. No block may be constant: volseg skips those.
        blocks: sizes (z, y, x) of the blocks, multiples of the network's stride; by default the whole volume in one
            block, and about halves and quarters of each axis.
        max_fraction: of the voxels, those that may differ more: networks that pass on the position of a maximum
            (max-unpooling) turn a rounding of two equal values into another output.

    Raises:
        AssertionError: names the blocking, the largest difference and its voxel; or the output hardly varies, so that
            seams would not show.
        VolsegError: the model or the volume is refused.
    """
    # Imported here, so that test doubles reach workers without torch.
    from volseg.testing.factories import float32_tolerance, whole_pass  # noqa: PLC0415

    network = load_model(str(model))
    expected = whole_pass(network, raw)
    tolerance = float32_tolerance(expected, network, raw, fraction=1 - max_fraction)
    if np.ptp(expected) < 8 * _STEP:
        raise AssertionError(
            f"the output of {model} lies within {expected.min():.3g} and {expected.max():.3g}: "
            "seams would not show; use weights or grey values that vary it more"
        )
    for block in blocks or _default_blocks(raw.shape, network.card.footprint.stride):
        # A byte is the nearest to its probability, hence up to half a step away.
        difference = np.abs(_predict(model, network, raw, block) * _STEP - expected) - _STEP / 2
        if np.mean(difference > tolerance) > max_fraction:
            voxel = tuple(map(int, np.unravel_index(np.argmax(difference), difference.shape)))
            raise AssertionError(
                f"blocks of {block} differ from the whole volume by {difference.max():.2g} beyond rounding to uint8, "
                f"at voxel {voxel} (z, y, x); float32 explains {tolerance:.2g}"
            )


def _default_blocks(shape: tuple[int, ...], stride: Zyx) -> list[Zyx]:
    """Blocks of the whole volume, of halves and of quarters, rounded up to the stride."""
    blocks = [tuple(ceil_to(-(-n // parts), s) for n, s in zip(shape, stride, strict=True)) for parts in (4, 2, 1)]
    return list(dict.fromkeys((z, y, x) for z, y, x in blocks))


def _predict(model: str | Path, network: Model, raw: NDArray[Any], block: Zyx) -> NDArray[np.uint8]:
    """The bytes that `volseg.predict` writes."""
    from volseg.testing.factories import make_volume, read_volume  # noqa: PLC0415 - see above

    with TemporaryDirectory(prefix="volseg-") as folder:
        source, target = Path(folder) / "raw.zarr", Path(folder) / "probability.zarr"
        make_volume(source, raw.shape, voxels=raw, voxel_nm=network.card.voxel_nm)
        summary = predict(
            str(source), str(target), model=str(model), block=block, halo="exact", precision="float32", device="cpu",
            cluster="serial",
        )  # fmt: skip
        if summary.failed:
            number, reason = next(iter(summary.failed.items()))
            raise AssertionError(f"blocks of {block}: {len(summary.failed)} failed; block {number}: {reason}")
        if any(summary.skipped.values()):
            raise AssertionError(
                f"blocks of {block}: skipped {summary.skipped}; use grey values that vary in each block"
            )
        return read_volume(target)
