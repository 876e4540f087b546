"""Compares FCN-8s, U-Net, FusionNet and the sliding window under equal conditions.

python -m benchmarks.literature RAW LABELS [NETWORK ...]

Same data, steps, patches, orientations, optimiser and seeds, with about half a million parameters each. The weights of
the last step are scored once, with the threshold that is best on the validation sections. RAW and LABELS are the 30
sections of ISBI 2012 (labels: 0 = membrane).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import record
from volseg.config import TrainConfig
from volseg.evaluation.metrics import PixelCounts, SegmentationCounts, pixel_scores
from volseg.inference.hardware import worker_info
from volseg.inference.settings import Engine
from volseg.models.model import Model, load_model_file
from volseg.ops import to_uint8
from volseg.training import open_volumes
from volseg.training.run import train
from volseg.training.validation import predict_sections

NETWORKS: dict[str, dict[str, Any]] = {
    "fcn8s": {"width": 4, "padded": True},
    "unet": {"width": 8},
    "fusionnet": {"width": 5},
    "sliding_window": {"width": 64, "hidden": 400},
}
SEEDS = (0, 1, 2)
LEARN, SELECT, SCORE = [0, 20], [20, 24], [24, 30]
STEPS, BATCH, PATCH = 600, 4, 128


class StepPrinter:
    """Prints the loss every 100 steps."""

    def step(self, step: int, loss: float, *_: float) -> None:
        if step % 100 == 0:
            print(f"  step {step}: loss {loss:.4f}", flush=True)  # noqa: T201 - a benchmark's screen

    def note(self, line: str) -> None:
        pass


def run_file(raw: str, labels: str, name: str, seed: int, folder: Path) -> TrainConfig:
    """Configuration of all networks: orientations only, AdamW, no EMA."""
    table = {"raw": raw, "labels": labels, "voxel_nm": [50, 4, 4]}
    plain = {"brightness": 0, "contrast": 0, "gamma": 0, "noise": 0, "blur": 0, "elastic": "none"}
    return TrainConfig.model_validate(
        {
            "data": {**table, "train": LEARN},
            "network": {"name": name, "arguments": NETWORKS[name]},
            "patches": {"size": PATCH, "batch": BATCH, "workers": 0},
            "augmentation": plain,
            "optimizer": {"ema_decay": 0, "learning_rate": 1e-3, "weight_decay": 1e-4},
            "schedule": {"warm_up": 0.05},
            "fit": {"steps": STEPS, "precision": "bfloat16", "device": "cpu", "seed": seed},
            "validation": {"every": STEPS},
            "output": {"folder": str(folder)},
        }
    )


def evaluate_sections(
    model: Model, config: TrainConfig, sections: list[int], threshold: float = 0.5
) -> dict[str, float]:
    """Score a network on some sections, and measure the rate of its prediction in kvoxel/s."""
    table = config.data[0].model_dump() | {"train": [0, 1], "validation": sections}
    (volume,) = open_volumes([type(config.data[0]).model_validate(table)], config.target)
    (sections_data,) = volume.read_validation()
    assert config.fit.precision != "auto"
    engine = Engine("cpu", config.fit.precision, 1, torch.get_num_threads(), "one")
    start = time.perf_counter()
    probability = to_uint8(
        predict_sections(model, sections_data.raw, engine, worker_info("cpu"))[model.card.membrane_channel]
    )
    rate = sections_data.raw.size / (time.perf_counter() - start) / 1e3
    counts, segments = PixelCounts(), SegmentationCounts()
    counts.add(probability, sections_data.labels == 1)
    segments.add(probability, sections_data.cell_ids)
    pixels, cells = pixel_scores(counts, threshold), segments.scores()
    return {
        "best_threshold": pixels.best_threshold,
        "best_f1": pixels.best_f1,
        "f1": round(pixels.f1, 4),
        "average_precision": round(pixels.average_precision, 4),
        "v_rand": round(cells.best_v_rand, 4),
        "v_info": round(cells.best_v_info, 4),
        "predict_kvoxel_s": round(rate, 1),
    }


def run(raw: str, labels: str, name: str, seed: int) -> dict[str, float]:
    """Train and score one network once."""
    with tempfile.TemporaryDirectory() as folder:
        config = run_file(raw, labels, name, seed, Path(folder))
        result = train(config, StepPrinter())
        model = load_model_file(config.output.model)
    validation = evaluate_sections(model, config, SELECT)
    test = evaluate_sections(model, config, SCORE, validation["best_threshold"])
    return {
        "parameters": model.card.parameters,
        "seconds": round(result.seconds, 1),
        "last_loss": round(statistics.mean(result.losses[-50:]), 4),
        "threshold": round(validation["best_threshold"], 3),
        "validation_f1": round(validation["best_f1"], 4),
        **{name: test[name] for name in ("f1", "average_precision", "v_rand", "v_info", "predict_kvoxel_s")},
    }


def main() -> None:
    raw, labels, *names = sys.argv[1:]
    for name in names or NETWORKS:
        runs: list[dict[str, float]] = []
        for seed in SEEDS:
            runs.append(run(raw, labels, name, seed))
            print(name, seed, runs[-1], flush=True)  # noqa: T201 - a benchmark's screen
        f1 = [run["f1"] for run in runs]
        means = {f"{key}_mean": round(statistics.mean(each[key] for each in runs), 4) for key in ("v_rand", "v_info")}
        record(
            f"literature-{name}",
            {
                "arguments": NETWORKS[name],
                "steps": STEPS,
                "batch": BATCH,
                "patch": PATCH,
                "threads": torch.get_num_threads(),
                "f1_mean": round(statistics.mean(f1), 4),
                "f1_spread": round(max(f1) - min(f1), 4),
                **means,
                "runs": runs,
            },
        )


if __name__ == "__main__":
    main()
