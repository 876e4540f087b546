"""A training, from its run file to model files, a log and pictures."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.errors import TrainingError
from volseg.training.data.volumes import open_volumes

if TYPE_CHECKING:
    from collections.abc import Callable

    from volseg.config import OutputConfig, TrainConfig
    from volseg.training.job import ProgressReporter
    from volseg.training.trainer import Trained


def is_rank_zero() -> bool:
    """Whether this process is the first, or the only one, of those that train together."""
    return os.environ.get("RANK", "0") == "0"


def train(
    config: TrainConfig, screen: ProgressReporter, *, resume: bool = False, stopping: Callable[[], bool] = lambda: False
) -> Trained:
    """Train a network, as a run file says.

    It leaves in the run's folder NAME.safetensors, the best model so far; NAME-last.safetensors;
    checkpoint.safetensors, to go on from; log.jsonl, curves.png, validation.png and validation-best.png; and
    TensorBoard's files if asked for.

    Args:
        config: the run file.
        screen: told how it goes.
        resume: go on from the folder's checkpoint, if there is one.
        stopping: asked after each step; once it says so, the training stops where it can be resumed.

    Raises:
        VolsegError: data, network or settings that do not fit, before the first step; a loss that is no number; a
            folder that cannot be written.
    """
    output, settings = config.output, config.settings
    _refuse_occupied(output, resume=resume)
    volumes = open_volumes(settings.data, settings.target)
    _make(Path(output.folder))

    # What was refused until here did not wait for torch.
    from volseg.training.checkpoint import read_checkpoint  # noqa: PLC0415
    from volseg.training.distributed import joined  # noqa: PLC0415
    from volseg.training.job import Job  # noqa: PLC0415
    from volseg.training.logger import RunLogger  # noqa: PLC0415
    from volseg.training.trainer import fit  # noqa: PLC0415

    resumed = read_checkpoint(output.checkpoint) if resume and output.checkpoint.exists() else None
    about = {
        "name": output.name,
        "license": "; ".join(dict.fromkeys(data.license for data in settings.data)),
        "training": settings.model_dump(mode="json", exclude={"network"}),
    }
    step = resumed.facts["step"] if resumed else 0
    with RunLogger(output, volumes[0].voxel_nm, screen, step) as diary, joined(settings.fit.device) as processes:
        return fit(Job(settings, volumes, about, processes, stopping, resumed), diary)


def _refuse_occupied(output: OutputConfig, *, resume: bool) -> None:
    """A training never writes over another one."""
    for path in () if resume else (output.checkpoint, output.model, output.log):
        if path.exists():
            raise TrainingError(
                f"{path.parent} holds {path.name} of another training; go on with it by --resume, choose another "
                "output.folder, or move it away"
            )


def _make(folder: Path) -> None:
    """Make the output folder, and find out now whether it can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrainingError(f"cannot write into {folder}: {error.strerror}; choose another output.folder") from error
