"""`volseg evaluate`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from volseg.cli.output import echo_json, plain_table
from volseg.text import counted

if TYPE_CHECKING:
    from rich.table import Table

    from volseg.evaluation.evaluate import MapScores
    from volseg.evaluation.metrics import InstanceScores, SegmentationScores

_SCORES = "scores.json"
_THRESHOLDS = "thresholds.png"
_MAX_SHARE = 0.5
"""Of membrane in a truth; above it, membrane and cells are probably exchanged."""


@click.command(short_help="Score a map or a segmentation against ground truth.")
@click.argument("prediction")
@click.argument("truth")
@click.option("--kind", type=click.Choice(["auto", "probability", "instances"]), default="auto", show_default=True,
              help="Content of PREDICTION. auto: uint8 and float32 are probabilities, other integers ids.")  # fmt: skip
@click.option("--channel", metavar="NAME",
              help="Channel of PREDICTION, by name or number.  [default: membrane, if there are several]")  # fmt: skip
@click.option("--membrane", type=click.Choice(["zero", "nonzero"]), default="zero", show_default=True,
              help="Which labels of TRUTH are membrane: 0 (cells carry ids), or all others (a mask).")  # fmt: skip
@click.option("--ignore", type=int, metavar="VALUE",
              help="Label of TRUTH to leave out; labels below 0 are never scored.")  # fmt: skip
@click.option("--roi", metavar="z0:z1,y0:y1,x0:x1", help="Score this region only, such as 24:30,:,:")
@click.option("--threshold", type=float, metavar="P", default=0.5, show_default=True,
              help="Probability that counts as membrane in the pixel scores.")  # fmt: skip
@click.option("--pixels-only", is_flag=True, help="Skip V_rand and V_info, which take longer.")
@click.option("--ignore-place", is_flag=True,
              help="Accept a TRUTH of another voxel size or translation than PREDICTION's.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Write scores.json there, and thresholds.png for a probability map.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON only.")
def evaluate(
    prediction: str,
    truth: str,
    kind: Literal["auto", "probability", "instances"],
    channel: str | None,
    membrane: Literal["zero", "nonzero"],
    ignore: int | None,
    roi: str | None,
    threshold: float,
    pixels_only: bool,
    ignore_place: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Score a membrane probability map, or a segmentation with ids, against ground truth.

    PREDICTION is a map that `volseg predict` wrote, or any volume of probabilities (uint8, float32) or ids (other
    integers). TRUTH is a volume of labels of the same shape. Both may be Zarr, FILE.h5:DATASET, a TIFF or a folder of
    sections.

    Scores of a map: precision, recall, F1 and average precision of its pixels, and V_rand and V_info of the cells that
    it separates in each section (higher is better). Scores of ids: adapted Rand error, variation of information and
    CREMI score (lower is better).

    \b
    Examples:
      volseg evaluate membrane.zarr train-labels.tif --roi 24:30,:,:
      volseg evaluate membrane.zarr mask.zarr --membrane nonzero --json
      volseg evaluate classes.zarr train-labels.tif --channel boundary
      volseg evaluate segmentation.zarr train-labels.tif --output scores
    """
    from volseg.cli.progress import ProgressBar
    from volseg.evaluation.evaluate import EvaluateOptions
    from volseg.evaluation.evaluate import evaluate as evaluate_volumes

    if output is not None:
        _make_folder(output, (("prediction", prediction), ("truth", truth)))
    options = EvaluateOptions(
        kind=kind,
        membrane=membrane,
        ignore=ignore,
        roi=roi,
        threshold=threshold,
        channel=channel,
        pixels_only=pixels_only,
        ignore_place=ignore_place,
    )
    with ProgressBar("section", visible=not as_json, transient=True) as bar:
        scores = evaluate_volumes(
            prediction, truth, options, lambda name, done, total: bar.update(f"score {name}", done, total)
        )
    _warn_of_polarity(scores, truth, membrane)
    if as_json:
        echo_json(_fields(scores))
    else:
        _print_tables(scores)
    if output is not None:
        _write(output, scores)


def _warn_of_polarity(scores: MapScores | InstanceScores, truth: str, membrane: str) -> None:
    from volseg.evaluation.evaluate import MapScores

    if isinstance(scores, MapScores) and scores.pixels.membrane_share > _MAX_SHARE:
        other = "nonzero" if membrane == "zero" else "zero"
        click.echo(
            f"Warning: {scores.pixels.membrane_share:.0%} of the voxels of {truth} are membrane with --membrane "
            f"{membrane}; if that is too many, give --membrane {other}",
            err=True,
        )


def _make_folder(folder: Path, inputs: tuple[tuple[str, str], ...]) -> None:
    """Make the output folder before scoring, so that no scores are lost if it cannot be made."""
    from volseg.errors import TargetError
    from volseg.storage import local_output, refuse_overwritten_inputs

    path = local_output(folder)
    refuse_overwritten_inputs(inputs, [path / _SCORES, path / _THRESHOLDS])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError(f"cannot make {folder}: {error.strerror}; choose another folder") from error


def _write(folder: Path, scores: MapScores | InstanceScores) -> None:
    from volseg.errors import TargetError
    from volseg.evaluation.evaluate import MapScores
    from volseg.evaluation.threshold_plot import save_thresholds

    try:
        (folder / _SCORES).write_text(json.dumps(_fields(scores), indent=2) + "\n")
    except OSError as error:
        raise TargetError(f"cannot write into {folder}: {error.strerror}; choose another folder") from error
    if isinstance(scores, MapScores):
        save_thresholds(folder / _THRESHOLDS, scores.curves, scores.segmentation)


def _fields(scores: MapScores | InstanceScores) -> dict[str, Any]:
    """Scores as JSON: those of pixels at the top, those of the cells of a map under `segmentation`."""
    from volseg.evaluation.metrics import InstanceScores

    if isinstance(scores, InstanceScores):
        return asdict(scores)
    cells = {} if scores.segmentation is None else {"segmentation": asdict(scores.segmentation)}
    return {**asdict(scores.pixels), **cells}


def _print_tables(scores: MapScores | InstanceScores) -> None:
    from rich.console import Console

    from volseg.evaluation.metrics import InstanceScores

    console = Console(highlight=False)
    if isinstance(scores, InstanceScores):
        console.print(_score_table("cells", asdict(scores)))
        return
    console.print(_score_table("pixels", asdict(scores.pixels)))
    if scores.segmentation is not None:
        for table in (_threshold_table(scores.segmentation), _best_table(scores.segmentation)):
            console.print()
            console.print(table)


def _score_table(heading: str, values: dict[str, float]) -> Table:
    table = plain_table([heading], [""])
    for name, value in values.items():
        table.add_row(name.replace("_", " "), f"{value:.4f}")
    return table


def _threshold_table(scores: SegmentationScores) -> Table:
    table = plain_table(["cells at"], ["V_rand", "V_info"])
    table.add_column("")
    best_at = (("V_rand", scores.v_rand_threshold), ("V_info", scores.v_info_threshold))
    for threshold, rand, info in zip(scores.thresholds, scores.v_rand, scores.v_info, strict=True):
        best = [name for name, at in best_at if at == threshold]
        mark = f"<- best {' and '.join(best)}" if best else ""
        table.add_row(f"{threshold:.1f}", f"{rand:.4f}", f"{info:.4f}", mark, style="bold" if best else None)
    return table


def _best_table(scores: SegmentationScores) -> Table:
    table = plain_table([f"best of {counted(scores.sections, 'section')}"], ["score", "split", "merge", "threshold"])
    for name, values, threshold in (
        ("V_rand", (scores.best_v_rand, scores.rand_split, scores.rand_merge), scores.v_rand_threshold),
        ("V_info", (scores.best_v_info, scores.info_split, scores.info_merge), scores.v_info_threshold),
    ):
        table.add_row(name, *(f"{value:.4f}" for value in values), f"{threshold:.1f}")
    return table
