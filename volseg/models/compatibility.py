"""Checks that a model fits a volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volseg.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.blocks import Footprint, ZyxFloat
    from volseg.ops import Normalization

_VOXEL_SIZE_TOLERANCE = 0.1


def refuse_voxel_size_mismatch(
    source_nm: ZyxFloat | None,
    model_nm: ZyxFloat,
    footprint: Footprint,
    levels_nm: Sequence[ZyxFloat | None] = (),
) -> None:
    """Refuse a source whose voxel size differs from the training's by more than 10 % along an axis in the reach.

    Args:
        source_nm: voxel size of the source, (z, y, x) in nanometres; None if unknown.
        model_nm: voxel size of the training data.
        footprint: of the network.
        levels_nm: voxel sizes of all levels of the source, finest first.

    Raises:
        ModelError: the voxel sizes differ; names a level that fits, if any.
    """
    if source_nm is None or _similar(source_nm, model_nm, footprint):
        return
    levels = [level for level, size in enumerate(levels_nm) if size and _similar(size, model_nm, footprint)]
    solution = (
        f"use --scale-level {levels[0]}" if levels else "use a model trained for this size or another --scale-level"
    )
    raise ModelError(
        f"the source's voxels are {_nm(source_nm)} nm, the model was trained on {_nm(model_nm)} nm (z, y, x); "
        f"{solution}, state the source's size with --voxel-size if its metadata are wrong, or give --ignore-voxel-size"
    )


def _similar(one: ZyxFloat, other: ZyxFloat, footprint: Footprint) -> bool:
    return all(
        abs(a / b - 1) <= _VOXEL_SIZE_TOLERANCE or not reach
        for a, b, reach in zip(one, other, footprint.reach_before, strict=True)
    )


def refuse_uneven_rotation(footprint: Footprint) -> None:
    """Refuse rotations by 90 degrees for a network that differs along y and x.

    Raises:
        ConfigError: the network differs along y and x.
    """
    differences = {
        name: sizes[1:]
        for name, sizes in (
            ("stride", footprint.stride),
            ("margin", footprint.margin),
            ("smallest input", footprint.smallest),
        )
        if sizes[1] != sizes[2]
    }
    for name, sizes in differences.items():
        raise ConfigError(
            f"--orientations all turns sections by 90 degrees, but this network's {name} differs along y and x "
            f"{sizes}; use --orientations flips"
        )


def refuse_dtype_mismatch(dtype: str, normalization: Normalization) -> None:
    """Refuse a source of another type if the constants of the training data normalise it.

    Raises:
        ModelError: the types differ.
    """
    if normalization.scope == "training" and dtype != normalization.dtype:
        raise ModelError(
            f"the source holds {dtype}, but this model's fixed normalisation was made for {normalization.dtype}; "
            "convert the source, or use a model that normalises by section or volume"
        )


def _nm(size: ZyxFloat) -> str:
    return " x ".join(f"{v:g}" for v in size)
