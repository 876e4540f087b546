"""Measures the cost of a block of a volume with few sections and with many: it may not grow with their number.

python -m benchmarks.sections

Blocks of one section through a whole worker: read, constants of the section, network, fence, write.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import volseg
from benchmarks.record import record
from volseg.blocks import Box
from volseg.models import read_card
from volseg.prediction.worker import RunRef, compute_block
from volseg.storage import VolumeRef, open_volume, read_record
from volseg.storage.create import create_volume
from volseg.storage.place import Place
from volseg.testing.factories import VOXEL_NM, blobs, make_model

SECTIONS = (50, 50_000)
MEASURED = 20
"""Sections that hold tissue, and whose blocks are computed."""
ROUNDS = 15
SIDE = 32
LIMIT = 1.05


def begin_run(folder: Path, sections: int, model: Path) -> RunRef:
    """Run a volume whose first sections hold tissue; its target has a table of all sections."""
    source, target = folder / f"{sections}.zarr", folder / f"{sections}-map.zarr"
    chunk = (MEASURED, SIDE, SIDE)
    volume = create_volume(
        source, shape=(sections, SIDE, SIDE), shard=chunk, chunk=chunk, dtype="uint8", place=Place.of_nm(VOXEL_NM)
    )
    volume.write(Box.of_shape(chunk), blobs(chunk))
    volseg.predict(
        str(source), str(target), model=str(model), cluster="serial", block=(1, SIDE, SIDE), halo=(0, 8, 8),
        precision="float32", roi=f"0:{MEASURED},:,:",
    )  # fmt: skip
    return RunRef(
        str(target), read_record(target).digest, VolumeRef(open_volume(str(source)).location), (read_card(model).path,)
    )


def round_seconds(reference: RunRef) -> float:
    """Seconds of a block, over the blocks with tissue."""
    started = time.perf_counter()
    for number in range(MEASURED):
        compute_block(number, reference)
    return (time.perf_counter() - started) / MEASURED


def measure() -> dict[str, float]:
    """Measure both volumes in turns."""
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder, "model.safetensors"))
        runs = [begin_run(Path(folder), sections, model) for sections in SECTIONS]
        for run in runs:
            round_seconds(run)
        pairs = [[round_seconds(run) for run in runs] for _ in range(ROUNDS)]
    few, many = (median(column) for column in zip(*pairs, strict=True))
    return {
        "sections_few": SECTIONS[0],
        "sections_many": SECTIONS[1],
        "ms_a_block_few": round(few * 1e3, 3),
        "ms_a_block_many": round(many * 1e3, 3),
        "ratio": round(median(many / few for few, many in pairs), 4),
        "limit": LIMIT,
    }


def main() -> None:
    """Measure and record."""
    figures = measure()
    sys.stdout.write(f"{figures}\n{record('sections', figures)}\n")
    if figures["ratio"] > LIMIT:
        sys.exit(f"a block of {SECTIONS[1]} sections costs {figures['ratio']:.3f} times one of {SECTIONS[0]}")


if __name__ == "__main__":
    main()
