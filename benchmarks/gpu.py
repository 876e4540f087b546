"""Measures the utilisation of a GPU: forward passes over tile sizes and batches, then whole runs; under ten minutes.

python -m benchmarks.gpu

It needs a CUDA device, and only the packages that volseg needs. FusionNet of width 64 with random weights. The baseline
is a sliding window under autocast: that of MONAI if it is installed, else `plain_window`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.adapters import CountingNetwork, PeerSettings, monai_window, plain_window
from benchmarks.charts import draw_charts
from benchmarks.record import record
from benchmarks.tables import write_tables
from volseg.blocks import Box, Zyx
from volseg.cluster import NullProgress
from volseg.config import PredictConfig, validate
from volseg.inference.optimize.optimize import DTYPES, optimize, specialized
from volseg.models.describe import describe_network
from volseg.models.model import load_model_file
from volseg.ops import normalize
from volseg.prediction.prepare import prepare
from volseg.prediction.run import execute
from volseg.storage import read_record
from volseg.storage.create import create_volume
from volseg.storage.place import Place
from volseg.testing.factories import VOXEL_NM, blobs, make_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from volseg.inference import Device, Precision


@dataclass(frozen=True)
class Scale:
    """Sizes of the measurement.

    Attributes:
        device: to measure.
        arguments: of the network, a FusionNet.
        matrix: side of the matrix product that measures the peak.
        sides: of the tiles.
        batches: tiles per pass.
        precisions: of the passes.
        shape: of the volume of whole runs, (z, y, x).
        sections: of the volume that the sliding window predicts.
        window: side of the sliding window.
        rounds: of each measurement; the result is the median.
        link: bytes of a transfer to the device.
    """

    device: Device = "cuda"
    arguments: dict[str, Any] = field(default_factory=lambda: {"width": 64})
    matrix: int = 8192
    sides: tuple[int, ...] = (512, 1024, 1536, 2048)
    batches: tuple[int, ...] = (1, 4, 8)
    precisions: tuple[Precision, ...] = ("bfloat16", "float16")
    shape: Zyx = (64, 2048, 2048)
    sections: int = 4
    window: int = 512
    rounds: int = 5
    link: int = 1 << 28


def median_call_seconds(call: Callable[[], object], scale: Scale) -> float:
    """Median seconds of a call that works on the device, after one round of warm-up."""
    times = []
    for _ in range(scale.rounds + 1):
        start = time.perf_counter()
        call()
        if scale.device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return median(times[1:])


def peak(precision: Precision, scale: Scale) -> float:
    """Operations per second of a large matrix product; a multiply-add counts as two, as in the network's cost."""
    left, right = (torch.randn(scale.matrix, scale.matrix, device=scale.device).to(DTYPES[precision]) for _ in "ab")
    return 2 * scale.matrix**3 / median_call_seconds(lambda: left @ right, scale)


def link_rate(scale: Scale) -> float:
    """Bytes per second from pinned memory to the device, as tiles are transferred."""
    pinned = torch.zeros(scale.link, dtype=torch.uint8, pin_memory=scale.device == "cuda")
    return scale.link / median_call_seconds(partial(pinned.to, scale.device, copy=True), scale)


def forward_rate(network: nn.Module, precision: Precision, side: int, batch: int, scale: Scale) -> float | None:
    """Voxels per second of volseg's forward pass over whole tiles on the device; None if they do not fit."""
    forward = specialized(optimize(network, scale.device, precision), (side, side), [(0, side - 1)] * 2, {}).network
    try:
        tiles = torch.randn(batch, 1, side, side, device=scale.device).to(DTYPES[precision])
        tiles = tiles.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            return batch * side**2 / median_call_seconds(lambda: forward(tiles), scale)
    except torch.OutOfMemoryError:
        return None


def forward_rows(network: nn.Module, flops_per_voxel: float, peaks: dict[Precision, float], scale: Scale) -> list[Any]:
    """Rates over precisions, tile sizes and batches; `mfu` is the fraction of the peak in the same precision."""
    rows = []
    for precision in scale.precisions:
        for side in scale.sides:
            for batch in scale.batches:
                rate = forward_rate(network, precision, side, batch, scale)
                if scale.device == "cuda":
                    torch.cuda.empty_cache()
                mfu = rate * flops_per_voxel / peaks[precision] if rate else None
                row = {"precision": precision, "side": side, "batch": batch}
                rows.append(
                    {
                        **row,
                        "kvoxel_s": round(rate / 1e3, 1) if rate else None,
                        "mfu": round(mfu, 4) if mfu else None,
                    }
                )
    return rows


def end_to_end(source: Path, model: Path, target: Path, scale: Scale, **options: Any) -> tuple[float, float]:
    """Predict a volume with `volseg.predict`; returns seconds before the first block, voxels per second after it."""
    values = {"source": str(source), "target": str(target), "model": str(model), "device": scale.device, **options}
    start = time.perf_counter()
    summary = execute(*prepare(validate(PredictConfig, {**values, "overwrite": True}, "predict")), NullProgress())
    if summary.failed:
        raise RuntimeError(f"blocks failed: {summary.failed}")
    before = time.perf_counter() - start - summary.seconds
    return before, summary.voxels / summary.seconds


def window_rate(model_file: Path, sections: np.ndarray, scale: Scale) -> Callable[[], float]:
    """Return a function that measures a sliding window under autocast in voxels per second, in memory."""
    model = load_model_file(model_file)
    model.network.to(scale.device)
    settings = PeerSettings(window=scale.window, device=scale.device)
    make = monai_window if find_spec("monai") else plain_window
    predict = make(CountingNetwork(model, torch.get_num_threads()), settings, torch.bfloat16)

    def rate() -> float:
        start = time.perf_counter()
        predict(sections)
        return float(sections.size / (time.perf_counter() - start))

    rate()  # warm-up
    return rate


def measure_end_to_end(folder: Path, scale: Scale, **options: Any) -> dict[str, Any]:
    """Measure volseg and the sliding window in turns, and the bytes per voxel of the map over the link."""
    model = make_model(folder / "network.safetensors", arguments=scale.arguments)
    sections = blobs((scale.sections, *scale.shape[1:]))
    voxels = np.concatenate([sections] * -(-scale.shape[0] // scale.sections))[: scale.shape[0]]
    z, y, x = (min(n, limit) for n, limit in zip(scale.shape, (16, 256, 256), strict=True))
    source = folder / "raw.zarr"
    target = create_volume(
        source, shape=scale.shape, shard=(z, y, x), chunk=(z, y, x), dtype="uint8", place=Place.of_nm(VOXEL_NM)
    )
    target.write(Box.of_shape(scale.shape), voxels)
    halo = (0, 64, 64)
    window = window_rate(model, normalize(sections, ((128.0, 60.0),)), scale)
    baseline = f"{'MONAI' if find_spec('monai') else 'plain'} sliding window, autocast"
    kvoxel_s: dict[str, list[float]] = {"volseg, halo auto": [], "volseg, halo 64": [], baseline: []}
    start_up: list[float] = []
    for _ in range(max(1, scale.rounds // 2)):
        before, rate = end_to_end(source, model, folder / "auto.zarr", scale, **options)
        start_up.append(before)
        kvoxel_s["volseg, halo auto"].append(rate)
        _, rate = end_to_end(source, model, folder / "64.zarr", scale, halo=halo, **options)
        kvoxel_s["volseg, halo 64"].append(rate)
        kvoxel_s[baseline].append(window())
    run_record = read_record(folder / "64.zarr")
    tiling = run_record.models[0].tiling
    link = link_rate(scale)
    # Tiles are transferred as uint8, and so is the probability of each core.
    in_, out = tiling.overhead, 1.0
    traffic = (in_ + out) * median(kvoxel_s["volseg, halo 64"])
    return {
        "precision": run_record.settings.precision, "tile": list(tiling.core), "start_up_s": round(start_up[0], 1),
        "kvoxel_s": {name: [round(rate / 1e3, 1) for rate in rates] for name, rates in kvoxel_s.items()},
        "link": {"bytes_in": round(in_, 3), "bytes_out": out, "gb_s": round(link / 1e9, 2),
                 "share": round(traffic / link, 4)},
    }  # fmt: skip


def measure(folder: Path, scale: Scale, **options: Any) -> dict[str, Any]:
    """Measure everything."""
    peaks = {precision: peak(precision, scale) for precision in scale.precisions}
    cost = describe_network("fusionnet", scale.arguments).flops_per_voxel
    network = load_model_file(make_model(folder / "passes.safetensors", arguments=scale.arguments)).network
    return {
        "device": torch.cuda.get_device_name() if scale.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "peak_tflop_s": {precision: round(flops / 1e12, 3) for precision, flops in peaks.items()},
        "forward": forward_rows(network, cost, peaks, scale),
        **measure_end_to_end(folder, scale, **options),
    }


def main() -> None:
    """Measure, record, print, and update the tables."""
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs a CUDA device, and none is visible here; use make bench for a CPU")
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = name  # no halo from an earlier run
        figures = measure(Path(name), Scale())
    sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{record('gpu', figures)}\n")
    draw_charts()
    write_tables()


if __name__ == "__main__":
    main()
