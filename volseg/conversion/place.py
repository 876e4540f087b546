"""The place of a converted volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volseg.blocks import is_voxel_size
from volseg.errors import ConfigError
from volseg.ops import Resampling
from volseg.storage.writers.base import LABEL_TYPES

if TYPE_CHECKING:
    from volseg.blocks import Zyx, ZyxFloat
    from volseg.config import ConvertConfig
    from volseg.storage import Place
    from volseg.storage.conversion_record import ConversionRecord


def target_place(source: str, stated: Place, voxel_nm: ZyxFloat | None) -> Place:
    """Return the place of a converted volume: that which its source states, with the given voxel size if there is one.

    Raises:
        ConfigError: no voxel size is given or stated, or one below 0.1 nm is given.
    """
    if voxel_nm is not None:
        if not is_voxel_size(voxel_nm):
            raise ConfigError(f"voxel size {voxel_nm} is below 0.1 nm; give it as Z,Y,X in nanometres, such as 50,4,4")
        return stated.with_voxel_nm(voxel_nm)
    if not stated.is_nm:
        reason = f" ({stated.problem})" if stated.problem else ""
        raise ConfigError(f"{source} states no voxel size{reason}; give --voxel-size Z,Y,X in nanometres")
    return stated


def target_resampling(
    place: Place, shape: Zyx, dtype: str, config: ConvertConfig, recorded: ConversionRecord | None
) -> Resampling | None:
    """Return how a volume is resampled: labels if source or target has a type of labels; None if its voxels stay.

    Args:
        place: of the source.
        shape: of the part of the source that is converted.
        dtype: of the source.
        config: the request.
        recorded: of the conversion to resume, for what is not requested.

    Raises:
        ConfigError: a size that makes no sense.
    """
    voxel_nm, target = config.resample, config.dtype or dtype
    if recorded is not None:
        target = config.dtype or recorded.output.dtype
        voxel_nm = voxel_nm or (recorded.resampling.target_nm if recorded.resampling else None)
    if voxel_nm is None:
        return None
    is_labels = dtype in LABEL_TYPES or target in LABEL_TYPES
    resampling = Resampling(place.scale, voxel_nm, "mode" if is_labels else "mean")
    resampling.check(shape, "--resample")
    return None if resampling.is_identity else resampling
