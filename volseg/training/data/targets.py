"""What the network should say, made of labels that were moved as integers."""

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


def classes_of(target: TargetSettings) -> tuple[str, ...]:
    """What the output channels stand for, where each has a sigmoid of its own.

    An affinity is named after its offset, in voxels: `affinity_z-1` is that of a voxel and the one a section before.

    Raises:
        ConfigError: an offset to the voxel itself, or one given twice.
    """
    if target.kind == "membrane":
        return ("membrane",)
    names = tuple("_".join(["affinity", *_steps(offset)]) for offset in target.offsets)
    if not names or "affinity" in names or len(set(names)) < len(names):
        raise ConfigError(
            f"target.offsets {target.offsets} must be different neighbours of a voxel, at least one; "
            "take out [0, 0, 0] and what is there twice"
        )
    return names


def _steps(offset: Zyx) -> list[str]:
    return [f"{axis}{step}" for axis, step in zip("zyx", offset, strict=True) if step]


def targets_of(
    labels: Tensor, target: TargetSettings, classes: tuple[str, ...], activation: Literal["sigmoid", "softmax"]
) -> tuple[Tensor, Tensor]:
    """The targets of a batch of labels, and which of them count.

    Of membrane, the channel called so is 1 on membrane, any other one is 1 off it. An affinity is 1 where a voxel and
    its neighbour have the same id, from 1 on; it counts where both are known and the neighbour lies in the patch.

    Args:
        labels: int32 (N, z, y, x), as in a `Sample`.
        target: what is learned.
        classes: what the network's channels stand for.
        activation: what makes probability of them.

    Returns:
        Targets (N, classes, z, y, x), and the mask of what counts (N, 1, z, y, x), for affinities (N, classes, z, y,
        x); float32, 0 or 1. Targets that do not count are 0.

    Raises:
        ConfigError: classes or an activation that such targets do not have.
    """
    if target.kind == "affinities":
        _refuse_others(classes, classes_of(target), activation)
        pairs = [_affinity(labels, offset) for offset in target.offsets]
        return torch.stack([same for same, _ in pairs], dim=1), torch.stack([known for _, known in pairs], dim=1)
    if "membrane" not in classes or len(classes) != (1 if activation == "sigmoid" else 2):
        raise ConfigError(
            f"a {activation} over {', '.join(classes)} does not tell membrane from the rest; "
            "train one class, membrane, or two with a softmax"
        )
    membrane, rest = (labels == 1).float(), (labels == 0).float()
    made = torch.stack([membrane if name == "membrane" else rest for name in classes], dim=1)
    return made, (labels != IGNORED).float()[:, None]


def refuse_far(offsets: Sequence[Zyx], shape: tuple[int, ...], where: str) -> None:
    """Refuse offsets whose neighbours are never seen.

    Args:
        offsets: of affinities.
        shape: what is seen at once, voxels along (z, y, x).
        where: what it is called in a run file.

    Raises:
        ConfigError: an offset as long as the shape, or longer.
    """
    for offset in offsets:
        if any(abs(step) >= n for step, n in zip(offset, shape, strict=True)):
            raise ConfigError(
                f"target.offsets {list(offset)} leads out of {where}, of which {list(shape)} voxels are seen at once, "
                "so it would never count; choose a shorter one, or more voxels"
            )


def _refuse_others(classes: tuple[str, ...], expected: tuple[str, ...], activation: str) -> None:
    if classes != expected or activation != "sigmoid":
        raise ConfigError(
            f"affinities need the classes {', '.join(expected)}, each with a sigmoid, and this network has a "
            f"{activation} over {', '.join(classes)}; train a network of {len(expected)} output channels"
        )


def _affinity(ids: Tensor, offset: Zyx) -> tuple[Tensor, Tensor]:
    """Whether voxel and neighbour are of one cell, and where that is known; (N, z, y, x) each, float32."""
    same, known = torch.zeros_like(ids, dtype=torch.float32), torch.zeros_like(ids, dtype=torch.float32)
    here, there = _overlap(ids.shape[1:], offset)
    voxel, neighbour = ids[here], ids[there]
    same[here] = ((voxel == neighbour) & (voxel > 0)).float()
    known[here] = ((voxel != IGNORED) & (neighbour != IGNORED)).float()
    return same, known


def _overlap(shape: torch.Size, offset: Zyx) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where voxels have their neighbour in the patch, and where these neighbours are; of (N, z, y, x)."""
    starts = [(max(-step, 0), max(step, 0), max(n - abs(step), 0)) for n, step in zip(shape, offset, strict=True)]
    here = tuple(slice(a, a + kept) for a, _, kept in starts)
    there = tuple(slice(b, b + kept) for _, b, kept in starts)
    return (slice(None), *here), (slice(None), *there)
