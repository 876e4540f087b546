"""Training of a network from a run file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.errors import TrainingError, redacted
from volseg.storage import local_output, refuse_overwritten_inputs
from volseg.training.data.polarity import polarity_warnings
from volseg.training.data.volumes import open_volumes

if TYPE_CHECKING:
    from collections.abc import Callable

    from volseg.config import OutputConfig, TrainConfig
    from volseg.training.job import ProgressReporter
    from volseg.training.trainer import TrainingResult


def is_rank_zero() -> bool:
    """Whether this process has rank 0, or is the only one."""
    return os.environ.get("RANK", "0") == "0"


def train(
    config: TrainConfig,
    reporter: ProgressReporter,
    *,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Train a network.

    Writes into the run's folder: NAME.safetensors, the best model so far; NAME-last.safetensors;
    checkpoint.safetensors, to resume from; log.jsonl, curves.png, validation.png and validation-best.png; and
    TensorBoard's event files if requested.

    Args:
        config: the run file.
        reporter: shows progress to the user.
        resume: continue from the folder's checkpoint, if there is one.
        should_stop: called after each step; if True, the training stops with a checkpoint.

    Raises:
        VolsegError: before the first step, data, network or settings do not fit; later, the loss is NaN or infinite,
            or the folder cannot be written.
    """
    output, settings = config.output, config.settings
    _refuse_overwritten_inputs(config)
    _refuse_existing_run(output, resume=resume)
    volumes = open_volumes(settings.data, settings.target)
    _create_folder(Path(output.folder))

    # All checks above run without torch.
    from volseg.training.checkpoint import read_checkpoint  # noqa: PLC0415
    from volseg.training.distributed import init_distributed  # noqa: PLC0415
    from volseg.training.job import TrainingJob  # noqa: PLC0415
    from volseg.training.logger import RunLogger  # noqa: PLC0415
    from volseg.training.trainer import run_training  # noqa: PLC0415

    checkpoint = read_checkpoint(output.checkpoint) if resume and output.checkpoint.exists() else None
    card_fields = {
        "name": output.name,
        "license": "; ".join(dict.fromkeys(data.license for data in settings.data)),
        "training": redacted(settings.model_dump(mode="json", exclude={"network"})),
    }
    step = checkpoint.metadata["step"] if checkpoint else 0
    with (
        RunLogger(output, volumes[0].voxel_nm, reporter, step) as logger,
        init_distributed(settings.fit.device) as context,
    ):
        if context.is_rank_zero:
            for warning in polarity_warnings(volumes):
                reporter.note(warning)
        return run_training(TrainingJob(settings, volumes, card_fields, context, should_stop, checkpoint), logger)


def _refuse_overwritten_inputs(config: TrainConfig) -> None:
    """Refuse output files that replace an input, or are added to a folder of sections."""
    output, inputs = config.output, [("network.start", config.network.start)] if config.network.start else []
    for data in config.data:
        inputs += [("data.raw", data.raw), ("data.labels", data.labels)]
    local_output(output.folder)
    files = (
        output.model, output.last_model, output.checkpoint, output.log, output.curves, output.last_image,
        output.best_image,
    )  # fmt: skip
    refuse_overwritten_inputs(inputs, files)


def _refuse_existing_run(output: OutputConfig, *, resume: bool) -> None:
    """Refuse to overwrite another training."""
    for path in () if resume else (output.checkpoint, output.model, output.log):
        if path.exists():
            raise TrainingError(
                f"{path.parent} contains {path.name} of another training; continue it with --resume, or choose another "
                "output.folder"
            )


def _create_folder(folder: Path) -> None:
    """Create the output folder, and check that it is writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrainingError(f"cannot write into {folder}: {error.strerror}; choose another output.folder") from error
