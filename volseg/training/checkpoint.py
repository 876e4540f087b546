"""Checkpoints: one safetensors file with JSON in its header, replaced atomically.

A process killed while writing leaves the previous checkpoint intact. Loading a checkpoint runs no code.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from volseg.errors import TrainingError
from volseg.text import parse_object

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_KEY = "volseg-checkpoint"
_FORMAT = 2


@dataclass(frozen=True)
class Checkpoint:
    """Everything needed to resume a training identically.

    Random generators have no state: augmentation follows from the seed and the patch index, dropout from the seed and
    the step.

    Attributes:
        tensors: weights, EMA and optimizer state, by name.
        metadata: step, seconds, scores and settings; plain JSON.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint at a path.

    Raises:
        TrainingError: the file cannot be written; the previous one is intact.
    """
    metadata = json.dumps({"format": _FORMAT, **checkpoint.metadata})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    write_atomic(path, save(tensors, {_KEY: metadata}))


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file so that readers see the old content or the new one, also after a power failure.

    Raises:
        TrainingError: the file cannot be written; the previous one is intact.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise TrainingError(
            f"cannot write {path}: {error.strerror}; free some space or choose another output.folder; "
            "the previous checkpoint is intact, rerun with --resume"
        ) from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        TrainingError: the file is missing, damaged, or of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = parse_object((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise TrainingError(f"there is no checkpoint {path} to resume from; leave out --resume") from None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(
            f"{path} is not a checkpoint that can be resumed ({error}); start again in another output.folder"
        ) from None
    if metadata.pop("format", None) != _FORMAT:
        raise TrainingError(
            f"{path} was written by another version of volseg; resume it with that version, or start again in another "
            "output.folder"
        )
    return Checkpoint(tensors, metadata)
