"""`volseg evaluate`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

import click


@click.command()
@click.argument("prediction")
@click.argument("truth")
@click.option("--channel", metavar="NAME",
              help="Channel of PREDICTION, by name or number.  [default: membrane, if there are several]")  # fmt: skip
@click.option("--membrane", type=click.Choice(["zero", "nonzero"]), default="zero", show_default=True,
              help="Which labels of TRUTH are membrane: 0 (cells carry ids), or all others (a mask).")  # fmt: skip
@click.option("--roi", metavar="z0:z1,y0:y1,x0:x1", help="Score this region only, such as 24:30,:,:")
@click.option("--threshold", type=float, default=0.5, show_default=True, help="Probability that counts as membrane.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def evaluate(
    prediction: str,
    truth: str,
    channel: str | None,
    membrane: Literal["zero", "nonzero"],
    roi: str | None,
    threshold: float,
    as_json: bool,
) -> None:
    """Score a membrane probability map against ground truth, pixel by pixel.

    PREDICTION is a map that `volseg predict` wrote (or any uint8 or float32 volume of probabilities); TRUTH is a
    volume, a TIFF or a folder of sections of the same shape.

    \b
    Examples:
      volseg evaluate membrane.zarr train-labels.tif --roi 24:30,:,:
      volseg evaluate membrane.zarr mask.zarr --membrane nonzero --json
      volseg evaluate classes.zarr train-labels.tif --channel boundary
    """
    from volseg.cli.printing import echo_json
    from volseg.scoring import score

    scores = score(prediction, truth, membrane=membrane, roi=roi, threshold=threshold, channel=channel)
    if as_json:
        echo_json(asdict(scores))
        return
    for name, value in asdict(scores).items():
        click.echo(f"{name.replace('_', ' '):>20}  {value:.4f}")
