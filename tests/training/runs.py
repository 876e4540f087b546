"""Small trainings for tests: a volume that a small network learns in seconds, and run files for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.config import TrainConfig
from volseg.testing.factories import make_volume, stripes
from volseg.training.run import train

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.training.trainer import TrainingResult


def make_stripes(folder: Path) -> Path:
    """Write raw.zarr and labels.zarr (0 = membrane), 6 x 96 x 96, into a folder."""
    raw, membrane = stripes((6, 96, 96), 1)
    make_volume(folder / "raw.zarr", raw.shape, voxels=raw, chunk=(1, 32, 32))
    make_volume(folder / "labels.zarr", raw.shape, voxels=np.where(membrane, 0, 255).astype(np.uint8))
    return folder


def make_config(volumes: Path, folder: Path, **tables: dict[str, Any]) -> TrainConfig:
    """Config of a small FusionNet in float32 without augmentation; `tables` override keys."""
    values: dict[str, Any] = {
        "data": {"raw": str(volumes / "raw.zarr"), "labels": str(volumes / "labels.zarr"), "train": [0, 4]},
        "network": {"name": "fusionnet", "arguments": {"width": 4, "depth": 1}},
        "patches": {"size": 32, "workers": 0},
        "augmentation": {"elastic": "none", "noise": 0, "blur": 0},
        "optimizer": {"learning_rate": 1e-2, "ema_decay": 0},
        "fit": {"steps": 20, "precision": "float32", "device": "cpu"},
        "validation": {"every": 20, "score": "f1"},
        "output": {"folder": str(folder)},
    }
    values["data"]["validation"] = [4, 6]
    for name, table in tables.items():
        values[name] = {**values.get(name, {}), **table}
    return TrainConfig.model_validate(values)


class RecordingReporter:
    """Records what a `ProgressReporter` receives."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, float, float, float]] = []
        self.notes: list[str] = []

    def step(self, step: int, loss: float, progress: float, wait_fraction: float) -> None:
        self.steps.append((step, loss, progress, wait_fraction))

    def note(self, line: str) -> None:
        self.notes.append(line)


def train_config(config: TrainConfig, *, stop_after: int | None = None, **more: Any) -> TrainingResult:
    """Train, and stop after a number of steps as Ctrl-C does."""
    reporter = RecordingReporter()
    return train(
        config, reporter, should_stop=lambda: stop_after is not None and len(reporter.steps) >= stop_after, **more
    )


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The entries of a training's log."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
