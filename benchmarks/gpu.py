"""How much of a GPU volseg uses: forward passes over tile sizes and batches, then the whole way; under ten minutes.

python -m benchmarks.gpu

It needs a CUDA device, and no packages but volseg's own. FusionNet of width 64, random weights. Against it runs what
MONAI's sliding window does, under autocast: MONAI itself where it is installed, else the same few lines.
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

from benchmarks.charts import draw_charts
from benchmarks.contenders import Cut, Seen, monai_window, plain_window
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
from volseg.storage.target import create_volume
from volseg.testing.factories import VOXEL_NM, blobs, make_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from volseg.inference import Device, Precision


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        device: where.
        arguments: of the network, a FusionNet.
        matrix: side of the matrix product that gives the peak.
        sides: of the tiles.
        batches: tiles a pass.
        precisions: of the passes.
        shape: of the volume that goes the whole way, (z, y, x).
        sections: of it that the sliding window takes.
        window: its side.
        rounds: of everything; the median counts.
        link: bytes that are sent to time the way to the device.
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


def seconds_of(work: Callable[[], object], scale: Scale) -> float:
    """The median time of some work on the device, after one round that warms up."""
    times = []
    for _ in range(scale.rounds + 1):
        began = time.perf_counter()
        work()
        if scale.device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return median(times[1:])


def peak(precision: Precision, scale: Scale) -> float:
    """Operations a second of a large matrix product; a multiply-add counts as two, as in the network's cost."""
    left, right = (torch.randn(scale.matrix, scale.matrix, device=scale.device).to(DTYPES[precision]) for _ in "ab")
    return 2 * scale.matrix**3 / seconds_of(lambda: left @ right, scale)


def link_rate(scale: Scale) -> float:
    """Bytes a second from pinned memory to the device, which is how tiles travel."""
    here = torch.zeros(scale.link, dtype=torch.uint8, pin_memory=scale.device == "cuda")
    return scale.link / seconds_of(partial(here.to, scale.device, copy=True), scale)


def forward_rate(network: nn.Module, precision: Precision, side: int, batch: int, scale: Scale) -> float | None:
    """Voxels a second of volseg's forward pass over whole tiles on the device; None where they do not fit."""
    whole = specialized(optimize(network, scale.device, precision), (side, side), [(0, side - 1)] * 2, {}).network
    try:
        tiles = torch.randn(batch, 1, side, side, device=scale.device).to(DTYPES[precision])
        tiles = tiles.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            return batch * side**2 / seconds_of(lambda: whole(tiles), scale)
    except torch.OutOfMemoryError:
        return None


def forward_rows(network: nn.Module, flops_per_voxel: float, peaks: dict[Precision, float], scale: Scale) -> list[Any]:
    """The passes over precisions, tile sizes and batches; `mfu` is their share of the peak of the same precision."""
    rows = []
    for precision in scale.precisions:
        for side in scale.sides:
            for batch in scale.batches:
                rate = forward_rate(network, precision, side, batch, scale)
                if scale.device == "cuda":
                    torch.cuda.empty_cache()
                share = rate * flops_per_voxel / peaks[precision] if rate else None
                row = {"precision": precision, "side": side, "batch": batch}
                rows.append(
                    {
                        **row,
                        "kvoxel_s": round(rate / 1e3, 1) if rate else None,
                        "mfu": round(share, 4) if share else None,
                    }
                )
    return rows


def end_to_end(source: Path, model: Path, target: Path, scale: Scale, **options: Any) -> tuple[float, float]:
    """`volseg.predict` of a volume: seconds before the first block, voxels a second after it."""
    values = {"source": str(source), "target": str(target), "model": str(model), "device": scale.device, **options}
    began = time.perf_counter()
    summary = execute(*prepare(validate(PredictConfig, {**values, "overwrite": True}, "predict")), NullProgress())
    if summary.failed:
        raise RuntimeError(f"blocks failed: {summary.failed}")
    before = time.perf_counter() - began - summary.seconds
    return before, summary.voxels / summary.seconds


def window_rate(model_file: Path, sections: np.ndarray, scale: Scale) -> Callable[[], float]:
    """Voxels a second of a sliding window under autocast, from memory to memory."""
    model = load_model_file(model_file)
    model.network.to(scale.device)
    cut = Cut(window=scale.window, device=scale.device)
    make = monai_window if find_spec("monai") else plain_window
    predict = make(Seen(model, torch.get_num_threads()), cut, torch.bfloat16)

    def rate() -> float:
        began = time.perf_counter()
        predict(sections)
        return float(sections.size / (time.perf_counter() - began))

    rate()  # warms up
    return rate


def whole_way(folder: Path, scale: Scale, **options: Any) -> dict[str, Any]:
    """volseg and the sliding window by turns; what crosses the link for each voxel of the map."""
    model = make_model(folder / "network.safetensors", arguments=scale.arguments)
    few = blobs((scale.sections, *scale.shape[1:]))
    voxels = np.concatenate([few] * -(-scale.shape[0] // scale.sections))[: scale.shape[0]]
    z, y, x = (min(n, most) for n, most in zip(scale.shape, (16, 256, 256), strict=True))
    source = folder / "raw.zarr"
    made = create_volume(source, shape=scale.shape, shard=(z, y, x), chunk=(z, y, x), dtype="uint8", voxel_nm=VOXEL_NM)
    made.write(Box.of_shape(scale.shape), voxels)
    halo = (0, 64, 64)
    window = window_rate(model, normalize(few, ((128.0, 60.0),)), scale)
    other = f"{'MONAI' if find_spec('monai') else 'plain'} sliding window, autocast"
    kvoxel_s: dict[str, list[float]] = {"volseg, halo auto": [], "volseg, halo 64": [], other: []}
    started: list[float] = []
    for _ in range(max(1, scale.rounds // 2)):
        before, rate = end_to_end(source, model, folder / "auto.zarr", scale, **options)
        started.append(before)
        kvoxel_s["volseg, halo auto"].append(rate)
        _, rate = end_to_end(source, model, folder / "64.zarr", scale, halo=halo, **options)
        kvoxel_s["volseg, halo 64"].append(rate)
        kvoxel_s[other].append(window())
    frozen = read_record(folder / "64.zarr")
    tiling = frozen.models[0].tiling
    link = link_rate(scale)
    # Tiles travel as they were read, in bytes, and so does the probability of each core.
    in_, out = tiling.overhead, 1.0
    error_diffusion = (in_ + out) * median(kvoxel_s["volseg, halo 64"])
    return {
        "precision": frozen.settings.precision, "tile": list(tiling.core), "start_up_s": round(started[0], 1),
        "kvoxel_s": {name: [round(rate / 1e3, 1) for rate in rates] for name, rates in kvoxel_s.items()},
        "link": {"bytes_in": round(in_, 3), "bytes_out": out, "gb_s": round(link / 1e9, 2),
                 "share": round(error_diffusion / link, 4)},
    }  # fmt: skip


def measured(folder: Path, scale: Scale, **options: Any) -> dict[str, Any]:
    """All figures."""
    peaks = {precision: peak(precision, scale) for precision in scale.precisions}
    cost = describe_network("fusionnet", scale.arguments).flops_per_voxel
    network = load_model_file(make_model(folder / "passes.safetensors", arguments=scale.arguments)).network
    return {
        "device": torch.cuda.get_device_name() if scale.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "peak_tflop_s": {precision: round(flops / 1e12, 3) for precision, flops in peaks.items()},
        "forward": forward_rows(network, cost, peaks, scale),
        **whole_way(folder, scale, **options),
    }


def main() -> None:
    """Measure, record, tell; make the page anew."""
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs a CUDA device, and none is visible here; use make bench for a CPU")
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = name  # no halo that an earlier run measured
        figures = measured(Path(name), Scale())
    sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{record('gpu', figures)}\n")
    draw_charts()
    write_tables()


if __name__ == "__main__":
    main()
