"""The comparison that the literature argues about: FCN-8s, U-Net, FusionNet and the sliding window, alike in all else.

python -m benchmarks.literature RAW LABELS [NETWORK ...]

Same data, steps, patches, orientations, optimiser and seeds, at about half a million parameters each. The last step
counts; the threshold is chosen on the validation sections, the score taken once on the scored ones. RAW and LABELS are
the 30 sections of ISBI 2012 (labels: 0 = membrane).
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import numpy as np
import torch

from benchmarks.record import record
from volseg.evaluation import PixelCounts, PixelScores, pixel_scores
from volseg.inference.facts import worker_facts
from volseg.models.model import Model
from volseg.ops import to_uint8
from volseg.training import DataSettings, FitSettings, LabelledVolume, NetworkSettings, load_labelled
from volseg.training.loop import Trained, fit, predict_sections

NETWORKS: dict[str, dict[str, Any]] = {
    "fcn8s": {"width": 4, "padded": True},
    "unet": {"width": 8},
    "fusionnet": {"width": 5},
    "sliding_window": {"width": 64, "hidden": 400},
}
SEEDS = (0, 1, 2)
LEARN, SELECT, SCORE = (0, 20), (20, 24), (24, 30)
STEPS, BATCH, PATCH = 600, 4, 128


class Silent:
    """Watches a training and says now and then how far it is."""

    def step(self, step: int, loss: float, learning_rate: float, share: float) -> None:
        if step % 100 == 0:
            print(f"  step {step}: loss {loss:.4f}", flush=True)  # noqa: T201 - a benchmark's screen

    def validated(self, *_: Any, **__: Any) -> None:
        pass


def scored(trained: Trained, volume: LabelledVolume, threshold: float = 0.5) -> tuple[PixelScores, float]:
    """Scores of a network on a volume, and kvoxel/s of its prediction with the exact halo."""
    started = time.perf_counter()
    probability = predict_sections(
        Model(trained.network, trained.card, ""), volume.raw, "bfloat16", worker_facts("cpu")
    )
    rate = volume.raw.size / (time.perf_counter() - started) / 1e3
    counts = PixelCounts()
    counts.add(to_uint8(probability), volume.membrane)
    return pixel_scores(counts, threshold), rate


def run(name: str, whole: LabelledVolume, seed: int) -> dict[str, float]:
    """Train and score one network once."""
    settings = FitSettings(
        steps=STEPS, batch=BATCH, patch=PATCH, validate_every=STEPS, precision="bfloat16", device="cpu", seed=seed
    )
    choice = NetworkSettings(name=name, arguments=NETWORKS[name])
    learn, select, score = (whole.sections(*sections) for sections in (LEARN, SELECT, SCORE))
    trained = fit(learn, None, choice, settings, Silent(), {"name": name})
    chosen, _ = scored(trained, select)
    final, rate = scored(trained, score, chosen.best_threshold)
    return {
        "parameters": trained.card.parameters,
        "seconds": round(trained.seconds, 1),
        "last_loss": round(float(np.mean(trained.losses[-50:])), 4),
        "threshold": round(chosen.best_threshold, 3),
        "validation_f1": round(chosen.best_f1, 4),
        "f1": round(final.f1, 4),
        "average_precision": round(final.average_precision, 4),
        "predict_kvoxel_s": round(rate, 1),
    }


def main() -> None:
    raw, labels, *names = sys.argv[1:]
    data = DataSettings(raw=raw, labels=labels, voxel_nm=(50, 4, 4), train=LEARN, validation=SELECT)
    whole = load_labelled(data)
    for name in names or NETWORKS:
        runs = []
        for seed in SEEDS:
            runs.append(run(name, whole, seed))
            print(name, seed, runs[-1], flush=True)  # noqa: T201 - a benchmark's screen
            f1 = [each["f1"] for each in runs]
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
                    "runs": runs,
                },
            )


if __name__ == "__main__":
    main()
