"""Event files for TensorBoard."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from volseg.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


def require_tensorboard() -> None:
    """Check that TensorBoard is installed.

    Raises:
        ConfigError: it is not.
    """
    if find_spec("tensorboard") is None:
        raise ConfigError(
            "output.tensorboard needs TensorBoard, which is not installed; pip install 'volseg[tensorboard]', or "
            "remove output.tensorboard"
        )


class TensorBoardWriter:
    """Writes scalars and images for `tensorboard --logdir FOLDER`."""

    def __init__(self, folder: Path, resumed_step: int = 0) -> None:
        """Open a folder.

        Args:
            folder: of the event files.
            resumed_step: step of the checkpoint; TensorBoard hides earlier events of later steps.
        """
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an optional dependency

        self._writer = SummaryWriter(str(folder), purge_step=resumed_step + 1 if resumed_step else None)

    def add_scalars(self, step: int, values: dict[str, float]) -> None:
        """Write the values of a step by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def add_image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """Write an image (rows, columns, 3)."""
        self._writer.add_image(name, image, step, dataformats="HWC")

    def flush(self) -> None:
        """Write buffered events to disk."""
        self._writer.flush()

    def close(self) -> None:
        """Write buffered events to disk and close the files."""
        self._writer.close()
