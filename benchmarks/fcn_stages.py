"""Compares FCN-8s trained by stages from a classifier, as published, with FCN-8s at once and from scratch.

python -m benchmarks.fcn_stages RAW LABELS

The classifier is a VGG16 of width 16 in torchvision's layout of vgg16_bn. It learns to tell from which of the
photographs of scikit-image a crop of 96 x 96 was taken; its 3 x 3 features are spread over 7 x 7, as torchvision does
with small images. By stages, FCN-32s starts from it, FCN-16s from FCN-32s and FCN-8s from FCN-16s. At once, FCN-8s
starts from the classifier; from scratch, from random weights. All three take as many steps on membranes, with the same
batches, orientations and highest learning rate; each stage has a warm-up and a cosine of its own. RAW and LABELS are
the 30 sections of ISBI 2012 (labels: 0 = membrane); sections and scores are those of `benchmarks.literature`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage import data
from skimage.color import rgb2gray
from torch import Tensor, nn

from benchmarks.literature import LEARN, SCORE, SELECT, StepPrinter, evaluate_sections
from benchmarks.record import record
from volseg.config import TrainConfig
from volseg.models.model import load_model_file
from volseg.models.networks.layers import initialise
from volseg.models.networks.vgg import CONVOLUTIONS_PER_STAGE, classifier_width, stage_widths
from volseg.training.run import train

WIDTH, WINDOW = 16, 96
IMAGES = ("astronaut", "brick", "camera", "cell", "chelsea", "coffee", "coins", "grass", "gravel",
          "hubble_deep_field", "immunohistochemistry", "moon", "retina", "rocket")  # fmt: skip
CLASSIFIER_STEPS, CLASSIFIER_BATCH, CLASSIFIER_RATE = 200, 32, 1e-3
STAGES = {"fcn32s": 150, "fcn16s": 150, "fcn8s": 150}
SEED = 0


class Classifier(nn.Module):
    """VGG16 with batch norms, and torchvision's names of layers."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, hidden = 3, classifier_width(WIDTH)
        for width, convolutions in zip(stage_widths(WIDTH), CONVOLUTIONS_PER_STAGE, strict=True):
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.average = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(channels * 49, hidden), nn.ReLU(), nn.Dropout(0.1),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(0.1),
            nn.Linear(hidden, classes),
        )  # fmt: skip
        initialise(self)
        for layer in self.classifier:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, colours: Tensor) -> Tensor:
        """Map (N, 3, y, x) to scores (N, classes)."""
        scores: Tensor = self.classifier(self.average(self.features(colours)).flatten(1))
        return scores


def draw_crops(images: list[Any], rng: np.random.Generator, count: int, *, held_out: bool) -> tuple[Tensor, Tensor]:
    """Crops in random orientations, in three equal colours, and the number of their image.

    Held-out crops lie in the lowest rows of an image, training crops above them.
    """
    labels = rng.integers(len(images), size=count)
    crops = []
    for image in (images[label] for label in labels):
        rows, columns = (side - WINDOW for side in image.shape)
        row = rows if held_out else rng.integers(rows - WINDOW + 1)
        column = rng.integers(columns + 1)
        crop = np.rot90(image[row : row + WINDOW, column : column + WINDOW], rng.integers(4))
        crops.append((crop - crop.mean()) / max(float(crop.std()), 1e-3))
    grey = torch.from_numpy(np.stack(crops).astype(np.float32))[:, None]
    return grey.expand(-1, 3, -1, -1), torch.from_numpy(labels)


def train_classifier(file: Path) -> dict[str, float]:
    """Train the classifier and save its state dict."""
    images = [getattr(data, name)() for name in IMAGES]
    images = [rgb2gray(image[..., :3]) if image.ndim == 3 else image / 255.0 for image in images]
    torch.manual_seed(SEED)
    rng, classifier = np.random.default_rng(SEED), Classifier(len(images))
    optimizer = torch.optim.AdamW(classifier.parameters(), CLASSIFIER_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, CLASSIFIER_RATE, CLASSIFIER_STEPS)
    start = time.perf_counter()
    for step in range(1, CLASSIFIER_STEPS + 1):
        crops, labels = draw_crops(images, rng, CLASSIFIER_BATCH, held_out=False)
        loss = nn.functional.cross_entropy(classifier(crops), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 25 == 0:
            sys.stdout.write(f"  classifier, step {step}: loss {loss:.3f}\n")
    seconds = time.perf_counter() - start
    crops, labels = draw_crops(images, rng, 100, held_out=True)
    with torch.no_grad():
        accuracy = (classifier.eval()(crops).argmax(1) == labels).float().mean()
    torch.save(classifier.state_dict(), file)
    return {
        "images": len(images),
        "steps": CLASSIFIER_STEPS,
        "seconds": round(seconds),
        "accuracy": round(float(accuracy), 3),
    }


def run_file(raw: str, labels: str, network: dict[str, Any], steps: int, folder: Path) -> TrainConfig:
    """Configuration of a stage, or of the training from scratch: orientations only, AdamW, no EMA."""
    plain = {"brightness": 0, "contrast": 0, "gamma": 0, "noise": 0, "blur": 0, "elastic": "none"}
    return TrainConfig.model_validate(
        {
            "data": {"raw": raw, "labels": labels, "voxel_nm": [50, 4, 4], "train": LEARN},
            "network": {"arguments": {"width": WIDTH, "padded": True}, **network},
            "patches": {"size": 128, "batch": 4, "workers": 0},
            "augmentation": plain,
            "optimizer": {"ema_decay": 0, "learning_rate": 5e-4, "weight_decay": 1e-4},
            "schedule": {"warm_up": 0.05},
            "fit": {"steps": steps, "precision": "float32", "device": "cpu", "seed": SEED},
            "validation": {"every": steps},
            "output": {"folder": str(folder)},
        }
    )


def fit(raw: str, labels: str, network: dict[str, Any], steps: int, folder: Path) -> tuple[Path, dict[str, float]]:
    """Train a network; returns its file and its scores, with the threshold that is best on the validation sections."""
    config = run_file(raw, labels, network, steps, folder)
    seconds = train(config, StepPrinter()).seconds
    model = load_model_file(config.output.model)
    threshold = evaluate_sections(model, config, SELECT)["best_threshold"]
    test = evaluate_sections(model, config, SCORE, threshold)
    scores = {name: test[name] for name in ("f1", "average_precision", "v_rand", "v_info")}
    sys.stdout.write(f"{network}: {scores}\n")
    return config.output.model, {"steps": steps, "seconds": round(seconds), **scores}


def main() -> None:
    raw, labels = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        classifier = start = folder / "vgg16.pt"
        figures: dict[str, Any] = {"width": WIDTH, "threads": torch.get_num_threads()}
        figures |= {"classifier": train_classifier(classifier), "stages": {}}
        sys.stdout.write(f"{figures['classifier']}\n")
        for kind, steps in STAGES.items():
            network = {"name": kind, "start": str(start)}
            start, figures["stages"][kind] = fit(raw, labels, network, steps, folder / kind)
        steps = sum(STAGES.values())
        at_once = {"name": "fcn8s", "start": str(classifier)}
        _, figures["at_once"] = fit(raw, labels, at_once, steps, folder / "at_once")
        _, figures["scratch"] = fit(raw, labels, {"name": "fcn8s"}, steps, folder / "scratch")
    record("fcn_stages", figures)


if __name__ == "__main__":
    main()
