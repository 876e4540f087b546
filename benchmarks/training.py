"""What volseg's training costs over a bare PyTorch loop: patches, augmentation, averaging, checks.

python -m benchmarks.training [DEVICE]

The bare loop has one batch in memory and takes it again and again: network, cross entropy, AdamW, bfloat16, channels
last, nothing else. volseg's draws every patch from a Zarr volume on disk, enriches it, clips the gradient, averages the
weights, looks at the loss and logs it. Both take turns, so that what else the machine does meets both.
"""

from __future__ import annotations

import json
import os
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
from volseg.storage.target import create_volume
from volseg.training.run import train

WIDTH, BATCH, SIDE = (64, 8, 256) if sys.argv[1:] == ["cuda"] else (16, 4, 256)
DEVICE = "cuda" if sys.argv[1:] == ["cuda"] else "cpu"
STEPS, LEFT_OUT, TURNS = 24, 6, 3
SHAPE = (16, 512, 512)


class Silent:
    """A screen that shows nothing."""

    def step(self, *_: Any) -> None:
        pass

    def note(self, line: str) -> None:
        pass


def bare() -> list[float]:
    """Seconds of each step of the bare loop, but the first ones."""
    torch.manual_seed(0)
    network = build_network("fusionnet", {"width": WIDTH}).to(DEVICE).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters())
    inputs = torch.randn(BATCH, 1, SIDE, SIDE, device=DEVICE).to(memory_format=torch.channels_last)
    targets = (torch.rand(BATCH, 1, SIDE, SIDE, device=DEVICE) > 0.8).float()
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        with torch.autocast(DEVICE, torch.bfloat16):
            output = network(inputs)
        loss = F.binary_cross_entropy_with_logits(output.float(), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()
        seconds.append(time.perf_counter() - started)
    return seconds[LEFT_OUT:]


def make_data(folder: Path) -> None:
    """A phantom in Zarr."""
    phantom = make_phantom(SHAPE, seed=3)
    for name, voxels in (("raw", phantom.raw), ("labels", phantom.labels)):
        target = create_volume(
            folder / f"{name}.zarr",
            shape=SHAPE,
            shard=(1, 512, 512),
            chunk=(1, 128, 128),
            dtype=voxels.dtype.name,
            voxel_nm=phantom.voxel_nm,
        )
        target.write(Box.of_shape(SHAPE), voxels)


def volseg(data: Path, output: Path, workers: int | str) -> tuple[list[float], float]:
    """Seconds of each step of volseg's loop, but the first ones; and what share of them it waited for patches."""
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
    train(config, Silent())
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    at, waited = ([entry[key] for entry in log] for key in ("seconds", "waited"))
    first = LEFT_OUT - 1
    return list(np.diff(at))[first:], (waited[-1] - waited[first]) / (at[-1] - at[first])


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder)
        loops: dict[str, list[float]] = {"bare": [], "workers auto": [], "workers 0": []}
        waits: dict[str, list[float]] = {"workers auto": [], "workers 0": []}
        for turn in range(TURNS):
            loops["bare"].append(statistics.median(bare()))
            for label, workers in (("workers auto", "auto"), ("workers 0", 0)):
                seconds, waited = volseg(folder, folder / f"{turn} {label}", workers)
                loops[label].append(statistics.median(seconds))
                waits[label].append(waited)
    step = {label: statistics.median(seconds) for label, seconds in loops.items()}
    figures = {
        "network": f"fusionnet width {WIDTH}, bfloat16, {BATCH} patches of {SIDE} x {SIDE}",
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)),
        "steps_per_s": {label: round(1 / seconds, 3) for label, seconds in step.items()},
        "ratio_to_bare": {label: round(step["bare"] / step[label], 3) for label in waits},
        "waiting_for_data": {label: round(statistics.median(shares), 4) for label, shares in waits.items()},
    }
    record(f"training-{DEVICE}", figures)
    print(json.dumps(figures, indent=2))  # noqa: T201 - a benchmark's screen


if __name__ == "__main__":
    main()
