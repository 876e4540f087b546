"""A training on disk, whole: one safetensors file with JSON in its header, written aside and renamed.

Whoever kills a training, even in mid-write, leaves the checkpoint before. Nothing in the file can run code.
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

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_KEY = "volseg-checkpoint"
_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """All that a training needs to go on as if it had never stopped.

    Chance has no state of its own: what is drawn for a patch, and what drop-out leaves out at a step, follow from the
    run file's seed and the number of the patch or the step.

    Attributes:
        tensors: weights, averages and the optimiser's moments, by name.
        facts: step, seconds, scores and settings; plain JSON.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in place of the one before.

    Raises:
        TrainingError: no room, or no right to write; the one before is untouched.
    """
    facts = json.dumps({"format": _FORMAT, **checkpoint.facts})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    replace_file(path, save(tensors, {_KEY: facts}))


def replace_file(path: Path, content: bytes) -> None:
    """Put content in a file so that a reader, or a power cut, finds the old or the new one, never half of it.

    Raises:
        TrainingError: no room, or no right to write.
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
            f"cannot write {path}: {error.strerror}; make room or choose another output.folder; "
            "what was written before is kept, and --resume goes on from it"
        ) from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        TrainingError: not there, broken, or of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise TrainingError(f"there is no checkpoint {path} to resume from; leave out --resume") from None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(f"{path} is not a checkpoint that can be resumed ({error}); start anew elsewhere") from None
    if facts.pop("format", None) != _FORMAT:
        raise TrainingError(f"{path} was written by another version of volseg; resume it with that one, or start anew")
    return Checkpoint(tensors, facts)
