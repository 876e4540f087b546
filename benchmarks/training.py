"""Measures the overhead of volseg's training over a bare PyTorch loop: patches, augmentation, EMA, checks.

python -m benchmarks.training [DEVICE]

The bare loop repeats one batch in memory: network, cross entropy, AdamW, bfloat16, channels last. volseg samples every
patch from a Zarr volume on disk, augments it, clips the gradient, averages the weights, checks the loss and logs it.
Both run in turns, so that other load on the machine affects both.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

from benchmarks.record import record
from volseg.blocks import Box
from volseg.config import TrainConfig
from volseg.models.registry import build_network
from volseg.phantom import make_phantom
from volseg.storage.create import create_volume
from volseg.storage.place import Place
from volseg.system import available_cpus
from volseg.training.run import train

WIDTH, BATCH, SIDE = (64, 8, 256) if sys.argv[1:] == ["cuda"] else (16, 4, 256)
DEVICE = "cuda" if sys.argv[1:] == ["cuda"] else "cpu"
STEPS, SKIPPED_STEPS, ROUNDS = 24, 6, 3
SHAPE = (16, 512, 512)


class SilentReporter:
    """Reports nothing."""

    def step(self, *_: Any) -> None:
        pass

    def note(self, line: str) -> None:
        pass


def bare_step_seconds() -> list[float]:
    """Seconds of each step of the bare loop, without the first ones."""
    torch.manual_seed(0)
    network = build_network("fusionnet", {"width": WIDTH}).to(DEVICE).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters())
    inputs = torch.randn(BATCH, 1, SIDE, SIDE, device=DEVICE).to(memory_format=torch.channels_last)
    targets = (torch.rand(BATCH, 1, SIDE, SIDE, device=DEVICE) > 0.8).float()
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        with torch.autocast(DEVICE, torch.bfloat16):
            output = network(inputs)
        loss = F.binary_cross_entropy_with_logits(output.float(), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()
        seconds.append(time.perf_counter() - start)
    return seconds[SKIPPED_STEPS:]


def make_data(folder: Path) -> None:
    """Write a phantom as Zarr."""
    phantom = make_phantom(SHAPE, seed=3)
    for name, voxels in (("raw", phantom.raw), ("labels", phantom.labels)):
        target = create_volume(
            folder / f"{name}.zarr",
            shape=SHAPE,
            shard=(1, 512, 512),
            chunk=(1, 128, 128),
            dtype=voxels.dtype.name,
            place=Place.of_nm(phantom.voxel_nm),
        )
        target.write(Box.of_shape(SHAPE), voxels)


def volseg_step_seconds(data: Path, output: Path, workers: int | str) -> tuple[list[float], float]:
    """Seconds of each step of volseg's loop, without the first ones; and the fraction spent waiting for patches."""
    config = TrainConfig.model_validate(
        {
            "data": {"raw": str(data / "raw.zarr"), "labels": str(data / "labels.zarr"), "train": [0, SHAPE[0]]},
            "network": {"arguments": {"width": WIDTH}},
            "patches": {"size": SIDE, "batch": BATCH, "workers": workers},
            "fit": {"steps": STEPS, "precision": "bfloat16", "device": DEVICE},
            "validation": {"every": STEPS},
            "output": {"folder": str(output)},
        }
    )
    train(config, SilentReporter())
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    elapsed, waited = ([entry[key] for entry in log] for key in ("seconds", "waited"))
    first = SKIPPED_STEPS - 1
    return list(np.diff(elapsed))[first:], (waited[-1] - waited[first]) / (elapsed[-1] - elapsed[first])


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder)
        loops: dict[str, list[float]] = {"bare": [], "workers auto": [], "workers 0": []}
        waits: dict[str, list[float]] = {"workers auto": [], "workers 0": []}
        for number in range(ROUNDS):
            loops["bare"].append(statistics.median(bare_step_seconds()))
            for label, workers in (("workers auto", "auto"), ("workers 0", 0)):
                seconds, waited = volseg_step_seconds(folder, folder / f"{number} {label}", workers)
                loops[label].append(statistics.median(seconds))
                waits[label].append(waited)
    step = {label: statistics.median(seconds) for label, seconds in loops.items()}
    figures = {
        "network": f"fusionnet width {WIDTH}, bfloat16, {BATCH} patches of {SIDE} x {SIDE}",
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "cores": len(available_cpus()),
        "steps_per_s": {label: round(1 / seconds, 3) for label, seconds in step.items()},
        "ratio_to_bare": {label: round(step["bare"] / step[label], 3) for label in waits},
        "waiting_for_data": {label: round(statistics.median(fractions), 4) for label, fractions in waits.items()},
    }
    record(f"training-{DEVICE}", figures)
    print(json.dumps(figures, indent=2))  # noqa: T201 - a benchmark's screen


if __name__ == "__main__":
    main()
