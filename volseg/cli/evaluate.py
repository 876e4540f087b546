"""`volseg evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from volseg.evaluation.evaluate import MapScores
    from volseg.evaluation.metrics import InstanceScores


@click.command()
@click.argument("prediction")
@click.argument("truth")
@click.option("--kind", type=click.Choice(["auto", "probability", "instances"]), default="auto", show_default=True,
              help="What PREDICTION holds. auto: uint8 and float32 are probabilities, other integers ids.")  # fmt: skip
@click.option("--channel", metavar="NAME",
              help="Channel of PREDICTION, by name or number.  [default: membrane, if there are several]")  # fmt: skip
@click.option("--membrane", type=click.Choice(["zero", "nonzero"]), default="zero", show_default=True,
              help="Which labels of TRUTH are membrane: 0 (cells carry ids), or all others (a mask).")  # fmt: skip
@click.option("--ignore", type=int, metavar="VALUE",
              help="Label of TRUTH whose voxels are not scored; those below 0 never are.")  # fmt: skip
@click.option("--roi", metavar="z0:z1,y0:y1,x0:x1", help="Score this region only, such as 24:30,:,:")
@click.option("--threshold", type=float, default=0.5, show_default=True,
              help="Probability that counts as membrane in the pixel scores.")  # fmt: skip
@click.option("--pixels-only", is_flag=True, help="Leave out V_rand and V_info, which take longer.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Write scores.json there, and of a map thresholds.png.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON, and nothing else.")
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
    output: Path | None,
    as_json: bool,
) -> None:
    """Score a membrane probability map, or cells that carry ids, against ground truth.

    PREDICTION is a map that `volseg predict` wrote, or any volume of probabilities (uint8, float32) or ids (other
    integers); TRUTH is one of the same shape. Both may be Zarr, FILE.h5:DATASET, a TIFF or a folder of sections.

    A map is scored pixel by pixel (precision, recall, F1, average precision) and by the cells that it separates in each
    section (V_rand, V_info: higher is better); ids by adapted Rand error, variation of information and CREMI score
    (lower is better).

    \b
    Examples:
      volseg evaluate membrane.zarr train-labels.tif --roi 24:30,:,:
      volseg evaluate membrane.zarr mask.zarr --membrane nonzero --json
      volseg evaluate classes.zarr train-labels.tif --channel boundary
      volseg evaluate segmentation.zarr train-labels.tif --output scores
    """
    from volseg.cli.output import as_plain, echo_json, print_scores
    from volseg.cli.progress import EvaluateScreen
    from volseg.evaluation.evaluate import ScoreOptions, score

    if output is not None:
        _make(output)
    options = ScoreOptions(
        kind=kind,
        membrane=membrane,
        ignore=ignore,
        roi=roi,
        threshold=threshold,
        channel=channel,
        pixels_only=pixels_only,
    )
    with EvaluateScreen(shown=not as_json) as screen:
        scores = score(prediction, truth, options, screen.told)
    if as_json:
        echo_json(as_plain(scores))
    else:
        print_scores(scores)
    if output is not None:
        _write(output, scores)


def _make(folder: Path) -> None:
    """Make the folder before the work, so that none is lost for want of it."""
    from volseg.errors import TargetError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError(f"cannot make {folder}: {error.strerror}; name another folder") from error


def _write(folder: Path, scores: MapScores | InstanceScores) -> None:
    import json

    from volseg.cli.output import as_plain
    from volseg.errors import TargetError
    from volseg.evaluation.evaluate import MapScores
    from volseg.evaluation.threshold_plot import save_thresholds

    try:
        (folder / "scores.json").write_text(json.dumps(as_plain(scores), indent=2) + "\n")
    except OSError as error:
        raise TargetError(f"cannot write into {folder}: {error.strerror}; name another folder") from error
    if isinstance(scores, MapScores):
        save_thresholds(folder / "thresholds.png", scores.curves, scores.segmentation)
