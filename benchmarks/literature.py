"""The comparison that the literature argues about: FCN-8s, U-Net, FusionNet and the sliding window, alike in all else.

python -m benchmarks.literature RAW LABELS [NETWORK ...]

Same data, steps, patches, orientations, optimiser and seeds, at about half a million parameters each. The last step
counts; the threshold is chosen on the validation sections, the score taken once on the scored ones. RAW and LABELS are
the 30 sections of ISBI 2012 (labels: 0 = membrane).
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


class Screen:
    """Says now and then how far a training is."""

    def step(self, step: int, loss: float, *_: float) -> None:
        if step % 100 == 0:
            print(f"  step {step}: loss {loss:.4f}", flush=True)  # noqa: T201 - a benchmark's screen

    def note(self, line: str) -> None:
        pass


def run_file(raw: str, labels: str, name: str, seed: int, folder: Path) -> TrainConfig:
    """What all networks are told: turns and flips alone, AdamW, nothing averaged."""
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


def scored(model: Model, config: TrainConfig, sections: list[int], threshold: float = 0.5) -> dict[str, float]:
    """Scores of a network on some sections, and kvoxel/s of its prediction with the exact halo."""
    table = config.data[0].model_dump() | {"train": [0, 1], "validation": sections}
    (volume,) = open_volumes([type(config.data[0]).model_validate(table)], config.target)
    (held,) = volume.read_validation()
    engine = Engine("cpu", "bfloat16", 1, torch.get_num_threads(), "one")
    started = time.perf_counter()
    stored = to_uint8(predict_sections(model, held.raw, engine, worker_info("cpu"))[model.card.membrane_channel])
    rate = held.raw.size / (time.perf_counter() - started) / 1e3
    counts, segments = PixelCounts(), SegmentationCounts()
    counts.add(stored, held.labels == 1)
    segments.add(stored, held.cell_ids)
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
        trained = train(config, Screen())
        model = load_model_file(config.output.model)
    chosen = scored(model, config, SELECT)
    final = scored(model, config, SCORE, chosen["best_threshold"])
    return {
        "parameters": model.card.parameters,
        "seconds": round(trained.seconds, 1),
        "last_loss": round(statistics.mean(trained.losses[-50:]), 4),
        "threshold": round(chosen["best_threshold"], 3),
        "validation_f1": round(chosen["best_f1"], 4),
        **{name: final[name] for name in ("f1", "average_precision", "v_rand", "v_info", "predict_kvoxel_s")},
    }


def main() -> None:
    raw, labels, *names = sys.argv[1:]
    for name in names or NETWORKS:
        runs: list[dict[str, float]] = []
        for seed in SEEDS:
            runs.append(run(raw, labels, name, seed))
            print(name, seed, runs[-1], flush=True)  # noqa: T201 - a benchmark's screen
        f1 = [each["f1"] for each in runs]
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
