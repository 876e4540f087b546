"""Training targets from integer labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from volseg.errors import ConfigError
from volseg.training.data.sample import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from volseg.blocks import Zyx
    from volseg.config.train_tables import TargetSettings


def target_classes(target: TargetSettings) -> tuple[str, ...]:
    """Name the output channels of a network with one sigmoid per channel.

    An affinity is named after its offset in voxels: `affinity_z-1` relates a voxel to the one in the section before.

    Raises:
        ConfigError: no offsets, a zero offset, or duplicates.
    """
    if target.kind == "membrane":
        return ("membrane",)
    names = tuple("_".join(["affinity", *_nonzero_steps(offset)]) for offset in target.offsets)
    if not names or "affinity" in names or len(set(names)) < len(names):
        raise ConfigError(
            f"target.offsets {target.offsets} must be different neighbours of a voxel, at least one; "
            "remove [0, 0, 0] and duplicates"
        )
    return names


def _nonzero_steps(offset: Zyx) -> list[str]:
    return [f"{axis}{step}" for axis, step in zip("zyx", offset, strict=True) if step]


def make_targets(
    labels: Tensor, target: TargetSettings, classes: tuple[str, ...], activation: Literal["sigmoid", "softmax"]
) -> tuple[Tensor, Tensor]:
    """Compute the targets of a batch of labels, and a mask of the valid ones.

    Membrane: the channel `membrane` is 1 on membrane, any other channel is 1 elsewhere. Affinities: 1 if a voxel and
    its neighbour have the same id above 0; valid if both are labelled and the neighbour lies within the patch.

    Args:
        labels: int32 (N, z, y, x), as in a `Sample`.
        target: the `[target]` table.
        classes: names of the network's channels.
        activation: of the network's output.

    Returns:
        Targets (N, classes, z, y, x) and their mask (N, 1, z, y, x), for affinities (N, classes, z, y, x); float32,
        0 or 1. Targets outside of the mask are 0.

    Raises:
        ConfigError: classes or activation do not fit the target.
    """
    if target.kind == "affinities":
        _refuse_other_classes(classes, target_classes(target), activation)
        pairs = [_affinity(labels, offset) for offset in target.offsets]
        return torch.stack([same for same, _ in pairs], dim=1), torch.stack([valid for _, valid in pairs], dim=1)
    if "membrane" not in classes or len(classes) != (1 if activation == "sigmoid" else 2):
        raise ConfigError(
            f"a {activation} over {', '.join(classes)} does not separate membrane from the rest; "
            "train one class, membrane, or two with a softmax"
        )
    membrane, background = (labels == 1).float(), (labels == 0).float()
    targets = torch.stack([membrane if name == "membrane" else background for name in classes], dim=1)
    return targets, (labels != IGNORED).float()[:, None]


def refuse_long_offsets(offsets: Sequence[Zyx], shape: tuple[int, ...], key: str) -> None:
    """Refuse affinity offsets that are never valid within a shape.

    Args:
        offsets: neighbours (z, y, x).
        shape: voxels along (z, y, x).
        key: of the run file that sets the shape.

    Raises:
        ConfigError: an offset as long as the shape, or longer.
    """
    for offset in offsets:
        if any(abs(step) >= n for step, n in zip(offset, shape, strict=True)):
            raise ConfigError(
                f"target.offsets {list(offset)} does not fit into the {list(shape)} voxels of {key}; "
                "use a shorter offset or more voxels"
            )


def _refuse_other_classes(classes: tuple[str, ...], expected: tuple[str, ...], activation: str) -> None:
    if classes != expected or activation != "sigmoid":
        raise ConfigError(
            f"affinities need the classes {', '.join(expected)}, each with a sigmoid, but this network has a "
            f"{activation} over {', '.join(classes)}; train a network with {len(expected)} output channels"
        )


def _affinity(ids: Tensor, offset: Zyx) -> tuple[Tensor, Tensor]:
    """Compare each voxel with its neighbour: same cell, and valid; (N, z, y, x) each, float32."""
    same, valid = torch.zeros_like(ids, dtype=torch.float32), torch.zeros_like(ids, dtype=torch.float32)
    here, there = _overlap(ids.shape[1:], offset)
    voxel, neighbour = ids[here], ids[there]
    same[here] = ((voxel == neighbour) & (voxel > 0)).float()
    valid[here] = ((voxel != IGNORED) & (neighbour != IGNORED)).float()
    return same, valid


def _overlap(shape: torch.Size, offset: Zyx) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slice the voxels whose neighbour lies within the patch, and these neighbours; for (N, z, y, x)."""
    spans = [(max(-step, 0), max(step, 0), max(n - abs(step), 0)) for n, step in zip(shape, offset, strict=True)]
    here = tuple(slice(start, start + length) for start, _, length in spans)
    there = tuple(slice(start, start + length) for _, start, length in spans)
    return (slice(None), *here), (slice(None), *there)
