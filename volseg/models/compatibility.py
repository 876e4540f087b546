"""Whether a model suits a volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volseg.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.blocks import Footprint, ZyxFloat
    from volseg.ops import Normalization


def refuse_other_voxels(
    source_nm: ZyxFloat | None,
    model_nm: ZyxFloat,
    footprint: Footprint,
    levels_nm: Sequence[ZyxFloat | None] = (),
) -> None:
    """Refuse a source whose voxels differ from the training's by more than 10 %, along the axes the network sees.

    Args:
        source_nm: voxel size of the source, (z, y, x) in nanometres; None where it is not known.
        model_nm: that of the training data.
        footprint: the network's.
        levels_nm: voxel sizes of the other levels that the source has, finest first.

    Raises:
        ModelError: they differ; names the level that would fit, if there is one.
    """
    if source_nm is None or _alike(source_nm, model_nm, footprint):
        return
    fitting = [level for level, size in enumerate(levels_nm) if size and _alike(size, model_nm, footprint)]
    way = f"use --scale-level {fitting[0]}" if fitting else "use a model trained for this size or another --scale-level"
    raise ModelError(
        f"the source's voxels are {_nm(source_nm)} nm, the model was trained on {_nm(model_nm)} nm (z, y, x); "
        f"{way}, or --ignore-voxel-size"
    )


def _alike(one: ZyxFloat, other: ZyxFloat, footprint: Footprint) -> bool:
    return all(
        abs(a / b - 1) <= _VOXEL_SIZE_TOLERANCE or not seen
        for a, b, seen in zip(one, other, footprint.reach_before, strict=True)
    )


def refuse_uneven(footprint: Footprint) -> None:
    """Refuse to turn sections by 90 degrees for a network that treats y and x differently.

    Raises:
        ModelError: it does.
    """
    uneven = {
        name: sizes[1:]
        for name, sizes in (
            ("stride", footprint.stride),
            ("margin", footprint.margin),
            ("smallest input", footprint.smallest),
        )
        if sizes[1] != sizes[2]
    }
    for name, sizes in uneven.items():
        raise ConfigError(
            f"--orientations all turns sections by 90 degrees, but this network's {name} differs along y and x "
            f"{sizes}; use --orientations flips"
        )


def refuse_other_type(dtype: str, normalization: Normalization) -> None:
    """Refuse grey values of another type where the training's own constants would be applied to them.

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


_VOXEL_SIZE_TOLERANCE = 0.1
