"""The place of a converted volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from volseg.blocks import is_voxel_size
from volseg.errors import ConfigError

if TYPE_CHECKING:
    from volseg.blocks import ZyxFloat
    from volseg.storage import Place


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
