"""The source of a run: what the user states of it, and what is assumed."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import Box
from volseg.errors import ConfigError, ResumeError
from volseg.storage import Chunked, FolderStack, MissingChunks, ReadOptions, UnpackedStack, parse_axes, place_of

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.blocks import Zyx, ZyxFloat
    from volseg.config import PredictConfig
    from volseg.storage import Place, Readable, RunRecord

__all__ = [
    "MissingChunks",
    "given_voxel_size",
    "missing_chunks",
    "read_options",
    "refuse_undecodable",
    "source_warnings",
]


def read_options(config: PredictConfig, recorded: RunRecord | None, target: Path) -> ReadOptions:
    """What the user states of the source's axes, channel and missing sections, or stated when the run was started.

    Raises:
        ResumeError: it is other than recorded.
    """
    before = recorded.source.options if recorded else ReadOptions()
    options = ReadOptions(
        before.axes if config.axes is None else parse_axes(config.axes),
        before.channel if config.channel is None else str(config.channel),
        config.missing or before.missing,
    )
    if recorded is not None and options != before:
        raise ResumeError(
            f"{target} was started with {before}, not {options}; leave out --axes, --channel and --missing, or start "
            "again with --overwrite"
        )
    return options


def given_voxel_size(config: PredictConfig, recorded: RunRecord | None, target: Path) -> ZyxFloat | None:
    """The voxel size that the user states, or stated when the run to resume was started; None if there is none.

    Raises:
        ResumeError: it is other than recorded.
    """
    if recorded is None:
        return config.voxel_size
    was = recorded.source.voxel_nm
    if config.voxel_size in (None, was):
        return was if recorded.source.voxel_size_given else None
    raise ResumeError(
        f"{target} was started with a voxel size of {was}, not {config.voxel_size}; leave out --voxel-size, or start "
        "again with --overwrite"
    )


def missing_chunks(config: PredictConfig, volume: Readable, recorded: RunRecord | None) -> MissingChunks:
    """What the user states of missing chunks, or stated when the run was started.

    Raises:
        ConfigError: the source has no chunks of which some may be missing.
    """
    if config.missing_chunks is not None and not isinstance(volume, Chunked):
        raise ConfigError(f"--missing-chunks does not apply to {volume.location}, which has no chunks; leave it out")
    return config.missing_chunks or (recorded.source.missing_chunks if recorded else None)


def source_warnings(volume: Readable, options: ReadOptions, place: Place) -> tuple[str, ...]:
    """What is assumed of a source, in a line each.

    Args:
        volume: the source.
        options: what the user states of it.
        place: its voxel size and translation, as the map gets them.
    """
    warnings = [*_place_warnings(volume, place)]
    if note := getattr(volume, "note", ""):
        warnings.append(note)
    if isinstance(volume, UnpackedStack):
        size = prod(volume.shape) * np.dtype(volume.dtype).itemsize / 1e9
        warnings.append(
            f"{volume.location} holds images, which each host decodes into a temporary file of {size:.1f} GB before "
            "the first block; for several runs, convert it once with: volseg convert"
        )
        if isinstance(volume.stack, FolderStack) and volume.stack.lost:
            read = "zeros" if options.missing == "blank" else "the nearest section"
            warnings.append(f"{volume.location} lacks {volume.stack.lost}, for which {read} are read")
    return tuple(warnings)


def refuse_undecodable(volume: Readable, first: Zyx) -> None:
    """Read one voxel, which refuses what opens but cannot be decoded; a stack of images is not decoded for it.

    Raises:
        SourceError: it cannot be read.
    """
    z, y, x = first
    if isinstance(volume, UnpackedStack):
        volume.stack.read(z, z + 1)
    elif not getattr(volume, "is_decoded_whole", False):
        volume.read(Box((z, y, x), (z + 1, y + 1, x + 1)))


def _place_warnings(volume: Readable, place: Place) -> tuple[str, ...]:
    problem = place_of(volume).problem
    if place.is_nm:
        given = f"so it is taken to have {place}, as --voxel-size says; its translation is kept in voxels"
        return (f"{volume.location}: {problem}, {given}",) if problem else ()
    reason = f" ({problem})" if problem else ""
    return (
        f"{volume.location} states no voxel size{reason}, so the map states none, and whether the model suits it is "
        "not checked; give --voxel-size Z,Y,X in nanometres",
    )
