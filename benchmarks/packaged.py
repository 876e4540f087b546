"""Scores the packaged models on sections that they were not trained on: predict, then evaluate.

python -m benchmarks.packaged DATA [NAME ...]

DATA holds `isbi2012/train-volume.tif`, `snemi3d/train-input.tif`, and `train-labels.tif` next to each. Predictions are
from one orientation, and the mean of eight. Thresholds are the best of 0.1 to 0.9 on the scored sections, as in the
challenge.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import volseg
from benchmarks.record import record
from volseg.evaluation.evaluate import EvaluateOptions, MapScores, evaluate_map
from volseg.models import packaged_models, read_card
from volseg.storage import open_volume, read_record

PIXEL_SCORES = ("f1", "best_f1", "best_threshold", "average_precision", "pixel_error")


@dataclass(frozen=True)
class EvaluationCase:
    """Data to score a packaged model on."""

    raw: str
    labels: str
    voxel_nm: tuple[float, float, float]
    roi: str


CASES = {
    "fusionnet-isbi2012": EvaluationCase(
        "isbi2012/train-volume.tif", "isbi2012/train-labels.tif", (50, 4, 4), "24:30,:,:"
    ),
    "fusionnet-snemi3d": EvaluationCase(
        "snemi3d/train-input.tif", "snemi3d/train-labels.tif", (30, 6, 6), "80:100,:,:"
    ),
}


def figures_of(scores: MapScores) -> dict[str, Any]:
    pixels, cells = asdict(scores.pixels), scores.segmentation
    assert cells is not None
    return {
        **{name: round(pixels[name], 4) for name in PIXEL_SCORES},
        "v_rand": round(cells.best_v_rand, 4),
        "v_rand_threshold": cells.v_rand_threshold,
        "v_info": round(cells.best_v_info, 4),
        "v_info_threshold": cells.v_info_threshold,
        "v_rand_at": dict(zip(map(str, cells.thresholds), (round(v, 4) for v in cells.v_rand), strict=True)),
        "v_info_at": dict(zip(map(str, cells.thresholds), (round(v, 4) for v in cells.v_info), strict=True)),
    }


def run(name: str, case: EvaluationCase, data: Path, folder: Path) -> dict[str, Any]:
    raw = folder / "raw.zarr"
    volseg.convert(str(data / case.raw), raw, voxel_size=case.voxel_nm)
    figures: dict[str, Any] = {"roi": case.roi, "digest": read_card(packaged_models()[name]).digest}
    views: tuple[Literal["one", "all"], ...] = ("one", "all")
    for orientations in views:
        target = str(folder / f"{orientations}.zarr")
        summary = volseg.predict(str(raw), target, model=name, roi=case.roi, orientations=orientations)
        entry = read_record(Path(target))
        figures[f"orientations_{orientations}"] = {
            **figures_of(evaluate_map(target, str(data / case.labels), EvaluateOptions(roi=case.roi))),
            "halo": list(entry.models[0].halo),
            "precision": entry.settings.precision,
            "predict_kvoxel_s": round(summary.voxels / summary.seconds / 1e3, 1),
        }
        print(name, orientations, figures[f"orientations_{orientations}"], flush=True)  # noqa: T201 - its screen
    figures["against_float32"] = against_float32(raw, folder, name, case, str(data / case.labels))
    print(name, figures["against_float32"], flush=True)  # noqa: T201 - its screen
    return figures


def against_float32(raw: Path, folder: Path, name: str, case: EvaluationCase, labels: str) -> dict[str, Any]:
    """Compare the precision that was chosen with float32, with the same halo and tile."""
    auto, exact = folder / "one.zarr", folder / "float32.zarr"
    entry = read_record(auto).models[0]
    volseg.predict(
        str(raw), str(exact), model=name, roi=case.roi, precision="float32", halo=entry.halo, tile=entry.tile
    )
    region = read_record(auto).settings.region
    prediction, reference = (open_volume(str(path)).read(region).astype(int) for path in (auto, exact))
    error = abs(prediction - reference)
    v_rand = []
    for path in (auto, exact):
        cells = evaluate_map(str(path), labels, EvaluateOptions(roi=case.roi)).segmentation
        assert cells is not None
        v_rand.append(cells.best_v_rand)
    return {
        "precision": read_record(auto).settings.precision,
        "share_within_one_level": round(float((error <= 1).mean()), 5),
        "greatest": int(error.max()),
        "v_rand_change": round(v_rand[0] - v_rand[1], 5),
    }


def main() -> None:
    data, *names = sys.argv[1:]
    for name in names or CASES:
        with tempfile.TemporaryDirectory() as folder:
            record(f"packaged-{name}", run(name, CASES[name], Path(data), Path(folder)))


if __name__ == "__main__":
    main()
