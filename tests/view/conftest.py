"""Volumes to view, written by volseg.storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from volseg.blocks import Box, Footprint, Zyx, ZyxFloat
from volseg.storage import UNCERTAINTY, ModelEntry, Place, RunRecord, Settings, SourceEntry, create_target, open_target
from volseg.storage.create import create_volume
from volseg.storage.run_record import FORMAT, NUMERICS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CHUNK = (4, 32, 32)


class MakeVolume(Protocol):
    def __call__(
        self,
        name: str,
        voxels: NDArray[Any],
        voxel_nm: ZyxFloat | None = (30, 6, 6),
        translation_nm: ZyxFloat | None = None,
        *,
        by_run: bool = False,
        channels: Sequence[str] = (),
        uncertainty: NDArray[Any] | None = None,
    ) -> Path: ...


def make_record(shape: Zyx, channels: Sequence[str] = (), *, uncertainty: bool = False) -> RunRecord:
    """Create the record of a run."""
    one, none = (1, 1, 1), (0, 0, 0)
    return RunRecord(
        format=FORMAT,
        numerics=NUMERICS,
        torch="2",
        source=SourceEntry(location="/raw.zarr/0", shape=shape, dtype="uint8", voxel_nm=(30, 6, 6), identity="i"),
        models=(
            ModelEntry(
                location="m.safetensors",
                name="m",
                digest="d",
                footprint=Footprint(
                    reach_before=none, reach_after=none, stride=one, margin=none, smallest=one, context=none
                ),
                normalization="fixed",
                halo=none,
                tile=shape,
                batch=1,
                statistics="",
            ),
        ),
        settings=Settings(
            block=shape,
            shard=shape,
            chunk=CHUNK,
            region=Box.of_shape(shape),
            device="cpu",
            precision="float32",
            threads=1,
            classes=tuple(channels) or ("membrane",),
            uncertainty=uncertainty,
        ),
        version="0",
        created="2026-01-01T00:00:00Z",
    )


@pytest.fixture
def make_volume(tmp_path: Path) -> MakeVolume:
    def make(
        name: str,
        voxels: NDArray[Any],
        voxel_nm: ZyxFloat | None = (30, 6, 6),
        translation_nm: ZyxFloat | None = None,
        *,
        by_run: bool = False,
        channels: Sequence[str] = (),
        uncertainty: NDArray[Any] | None = None,
    ) -> Path:
        z, y, x = voxels.shape[-3:]
        shape, path, place = (z, y, x), tmp_path / name, Place.of_nm(voxel_nm, translation_nm)
        if by_run:
            target = create_target(path, make_record(shape, channels, uncertainty=uncertainty is not None), place)
        else:
            target = create_volume(
                path,
                shape=shape,
                shard=shape,
                chunk=CHUNK,
                dtype=voxels.dtype.name,
                place=place,
                channels=channels,
            )
        target.write(Box.of_shape(shape), voxels)
        if uncertainty is not None:
            open_target(path / UNCERTAINTY).write(Box.of_shape(shape), uncertainty)
        return path

    return make
