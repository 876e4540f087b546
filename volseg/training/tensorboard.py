"""A training's figures for TensorBoard."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from volseg.errors import TrainingError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


def refuse_without_tensorboard() -> None:
    """Find out whether TensorBoard can be written for.

    Raises:
        TrainingError: it is not installed.
    """
    if find_spec("tensorboard") is None:
        raise TrainingError(
            "output.tensorboard needs TensorBoard, which is not installed; pip install 'volseg[tensorboard]', or leave "
            "it out"
        )


class Board:
    """Writes what `tensorboard --logdir FOLDER` shows."""

    def __init__(self, folder: Path, resumed_step: int = 0) -> None:
        """Open a folder.

        Args:
            folder: where event files go.
            resumed_step: what was written of later steps, before a training was stopped, is dropped.
        """
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - it may not be there

        self._writer = SummaryWriter(str(folder), purge_step=resumed_step + 1 if resumed_step else None)

    def numbers(self, step: int, values: dict[str, float]) -> None:
        """One value at a step for each name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """A picture (rows, columns, 3)."""
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def flush(self) -> None:
        """Let those who watch see what was written."""
        self._writer.flush()

    def close(self) -> None:
        """Write out what is held back."""
        self._writer.close()
