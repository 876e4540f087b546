"""A demonstration on generated EM with ground truth: train, predict, evaluate, draw."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import Box
from volseg.cluster import NullProgress
from volseg.config import OutputConfig, PredictConfig, TrainConfig
from volseg.config.train_tables import (
    AugmentationSettings,
    DataSettings,
    FitSettings,
    NetworkSettings,
    OptimizerSettings,
    PatchSettings,
    ValidationSettings,
)
from volseg.errors import TargetError
from volseg.evaluation.evaluate import EvaluateOptions, evaluate_map
from volseg.phantom import make_phantom
from volseg.plots.panel import save_panel
from volseg.prediction.prepare import prepare
from volseg.prediction.run import execute
from volseg.storage import local_output, open_volume
from volseg.storage.create import create_volume
from volseg.storage.place import Place
from volseg.training.run import train

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.blocks import Zyx
    from volseg.cluster import Progress
    from volseg.evaluation.metrics import PixelScores
    from volseg.training.job import ProgressReporter

PACKAGED = "fusionnet-isbi2012"
_LEARN_SHAPE: Zyx = (14, 320, 320)
_VALIDATION = 2
_UNSEEN_SHAPE: Zyx = (16, 448, 448)
_CHUNK: Zyx = (8, 64, 64)
_SHARD: Zyx = (8, 448, 448)
_BLOCK: Zyx = (4, 224, 224)
_OUTPUTS = (
    *(f"{name}-{kind}.zarr" for name in ("learn", "unseen") for kind in ("raw", "truth", "membrane")),
    *("unseen-packaged.zarr", "unseen.png", "demo.safetensors", "demo-last.safetensors", "checkpoint.safetensors"),
    *("log.jsonl", "curves.png", "validation.png", "validation-best.png"),
)
"""Files of a demo, which the next may replace; nothing else in its folder is touched."""


@dataclass(frozen=True, slots=True)
class DemoFolder:
    """Paths of a demo's files."""

    folder: Path

    @property
    def raw(self) -> Path:
        """The volume to predict, apart from the training volume."""
        return self.folder / "unseen-raw.zarr"

    @property
    def truth(self) -> Path:
        """Its cells: ids, 0 = membrane."""
        return self.folder / "unseen-truth.zarr"

    @property
    def probability(self) -> Path:
        """Its membrane probability, as predicted."""
        return self.folder / "unseen-membrane.zarr"

    @property
    def packaged(self) -> Path:
        """A section of it, as a packaged model predicts it."""
        return self.folder / "unseen-packaged.zarr"

    @property
    def picture(self) -> Path:
        """A section of all, side by side."""
        return self.folder / "unseen.png"

    def clear(self, *, overwrite: bool) -> None:
        """Delete the files of an earlier demo.

        Raises:
            TargetError: the folder is a URL or holds other files, or may not be replaced.
        """
        local_output(self.folder)
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            if not overwrite:
                raise TargetError(f"{self.folder} is not empty; give --overwrite, or another folder")
            if not self.raw.is_dir():
                raise TargetError(
                    f"{self.folder} holds no earlier demo, so --overwrite leaves it alone; choose another folder"
                )
        for name in _OUTPUTS:
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TargetError(f"cannot make {self.folder}: {error.strerror}; choose another folder") from error


def make_data(place: DemoFolder) -> None:
    """Generate a volume to train on and another one to predict."""
    for name, shape, seed in (("learn", _LEARN_SHAPE, 1), ("unseen", _UNSEEN_SHAPE, 2)):
        phantom = make_phantom(shape, seed=seed)
        for kind, voxels in (("raw", phantom.raw), ("truth", phantom.labels)):
            target = create_volume(
                place.folder / f"{name}-{kind}.zarr",
                shape=shape,
                shard=_SHARD,
                chunk=_CHUNK,
                dtype=voxels.dtype.name,
                place=Place.of_nm(phantom.voxel_nm),
            )
            target.write(Box.of_shape(shape), voxels)
            target.remove_partials()


def learn(place: DemoFolder, steps: int, screen: ProgressReporter) -> None:
    """Train a small FusionNet on the first volume; its last sections select the step."""
    depth = _LEARN_SHAPE[0]
    config = TrainConfig(
        data=(
            DataSettings(
                raw=str(place.folder / "learn-raw.zarr"),
                labels=str(place.folder / "learn-truth.zarr"),
                train=((0, depth - _VALIDATION),),
                validation=((depth - _VALIDATION, depth),),
                license="generated by volseg: no terms",
            ),
        ),
        network=NetworkSettings(arguments={"width": 8, "depth": 2}),
        patches=PatchSettings(size=(1, 128, 128), workers=0),
        # In so few steps the network cannot adapt to more than rotations and flips.
        augmentation=AugmentationSettings(elastic="none", blur=0, gamma=0),
        optimizer=OptimizerSettings(learning_rate=3e-3, ema_decay=0.98),
        fit=FitSettings(steps=steps),
        validation=ValidationSettings(every=100),
        output=OutputConfig(folder=str(place.folder), name="demo"),
    )
    train(config, screen)


def map_and_score(place: DemoFolder, progress: Progress) -> PixelScores:
    """Predict the second volume on a local cluster, and score it."""
    model = str(place.folder / "demo.safetensors")
    config = PredictConfig(source=str(place.raw), target=str(place.probability), model=(model,), block=_BLOCK)
    execute(*prepare(config), progress)
    return evaluate_map(str(place.probability), str(place.truth), EvaluateOptions(pixels_only=True)).pixels


def map_with_packaged(place: DemoFolder) -> PixelScores:
    """Predict one section with a packaged model, trained on real tissue only, and score it."""
    z, (_, y, x) = _UNSEEN_SHAPE[0] // 2, _UNSEEN_SHAPE
    config = PredictConfig(
        source=str(place.raw),
        target=str(place.packaged),
        model=(PACKAGED,),
        block=(1, y, x),
        roi=f"{z}:{z + 1},:,:",
        ignore_voxel_size=True,  # 30 x 6 x 6 nm here, 50 x 4 x 4 nm there
        cluster="serial",
    )
    execute(*prepare(config), NullProgress())
    return score_section(place, place.packaged)


def score_section(place: DemoFolder, prediction: Path | None = None) -> PixelScores:
    """Score the drawn section of a map; by default of the one that the network of the demo predicted."""
    z = _UNSEEN_SHAPE[0] // 2
    options = EvaluateOptions(pixels_only=True, roi=f"{z}:{z + 1},:,:")
    return evaluate_map(str(prediction or place.probability), str(place.truth), options).pixels


def draw(place: DemoFolder, own: PixelScores, packaged: PixelScores) -> None:
    """Draw a section of all volumes side by side."""
    z = _UNSEEN_SHAPE[0] // 2
    section = Box((z, 0, 0), (z + 1, *_UNSEEN_SHAPE[1:]))
    raw, truth, trained, other = (
        open_volume(str(path)).read(section)[0] for path in (place.raw, place.truth, place.probability, place.packaged)
    )
    columns = [
        ("raw, generated", raw),
        ("truth", truth == 0),
        ("trained here", trained / np.float32(255)),
        (PACKAGED, other / np.float32(255)),
    ]
    title = f"a section that neither network saw: F1 {own.f1:.3f} trained here, {packaged.f1:.3f} {PACKAGED}"
    save_panel(place.picture, columns, title=title, voxel_nm=open_volume(str(place.raw)).voxel_nm)
