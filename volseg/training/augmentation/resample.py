"""Moving voxels: raw is interpolated, labels and weights are taken from the nearest voxel, edges are mirrored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import grid_sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from volseg.training.data.sample import Sample


def reflect_indices(indices: Tensor, length: int) -> Tensor:
    """Mirror indices beyond the ends of an axis, at any distance; the edge is not repeated.

    >>> reflect_indices(torch.arange(-4, 7), 3).tolist()
    [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    """
    if length == 1:
        return torch.zeros_like(indices)
    period = 2 * (length - 1)
    wrapped = indices.remainder(period)
    return torch.minimum(wrapped, period - wrapped)


def flat_indices(rows: Tensor, columns: Tensor, shape: Sequence[int]) -> Tensor:
    """Convert rows and columns to row-major indices within a section, (N, 1, y x x).

    Args:
        rows: int64; broadcasts with `columns` to (N, 1, y, x). Mirrored beyond the section.
        columns: int64, likewise.
        shape: (y, x).
    """
    height, width = shape
    indices = reflect_indices(rows, height) * width + reflect_indices(columns, width)
    return indices.expand(-1, 1, height, width).flatten(2)


def gather_voxels(tensor: Tensor, indices: Tensor) -> Tensor:
    """Take the voxel at each index of `flat_indices`, the same for every z; (N, z, y, x) of any type."""
    return tensor.flatten(2).gather(2, indices.expand(-1, tensor.shape[1], -1)).reshape(tensor.shape)


def interpolate(raw: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Sample (N, z, y, x) between voxels by bicubic interpolation; `rows` and `columns` are float32 (N, y, x).

    Bilinear interpolation is four times faster but removes a fifth of the grain, so that a network would train on
    smoother images than it predicts.
    """
    height, width = raw.shape[-2:]
    grid = torch.stack([2 * columns / max(width - 1, 1) - 1, 2 * rows / max(height - 1, 1) - 1], -1)
    return grid_sample(raw, grid, mode="bicubic", padding_mode="reflection", align_corners=True)


def apply_to_patches(tensor: Tensor, indices: Sequence[int], change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change some entries of the first axis, in a copy."""
    if len(indices) == len(tensor):
        return change(tensor)
    selected = torch.tensor(indices, device=tensor.device)
    return tensor.index_copy(0, selected, change(tensor[selected]))


def apply_to_sections(tensor: Tensor, indices: Sequence[int], change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change some sections of (N, z, y, x), in a copy; index patch x depth + z, passed to `change` as (n, 1, y, x)."""
    return apply_to_patches(tensor.flatten(0, 1).unsqueeze(1), indices, change).reshape(tensor.shape)


def apply_to_all(sample: Sample, change: Callable[[Tensor], Tensor]) -> Sample:
    """Change raw, labels and weights in the same way."""
    weights = None if sample.weights is None else change(sample.weights)
    return replace(sample, raw=change(sample.raw), labels=change(sample.labels), weights=weights)


def move_sections(sample: Sample, indices: Sequence[int], rows: Tensor, columns: Tensor) -> Sample:
    """Move whole sections by whole voxels: raw, labels and weights alike.

    Args:
        sample: a batch.
        indices: n sections, each patch x depth + z.
        rows: int64 source rows; broadcasts with `columns` to (n, 1, y, x).
        columns: int64 source columns.
    """
    source = flat_indices(rows, columns, sample.raw.shape[-2:])
    return apply_to_all(
        sample, lambda tensor: apply_to_sections(tensor, indices, lambda sections: gather_voxels(sections, source))
    )
