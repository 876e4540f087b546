"""`volseg demo`."""

from __future__ import annotations

from pathlib import Path

import click

from volseg.text import counted


@click.command(short_help="Train, predict and evaluate on generated EM.")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("volseg-demo"))
@click.option(
    "--steps", type=click.IntRange(min=1), metavar="N", default=200, show_default=True, help="Steps of the training."
)
@click.option("--overwrite", is_flag=True, help="Replace the files of an earlier demo in FOLDER.")
def demo(folder: Path, steps: int, overwrite: bool) -> None:
    """Train, predict and evaluate within minutes, on generated EM with ground truth.

    Makes two volumes of synthetic neuropil, trains a small FusionNet on the first, predicts the second (which it never
    saw) block by block on a local Dask cluster, scores it, predicts a section with a packaged model, and saves a
    picture. Needs no data, no GPU, no network.

    \b
    Example:
      volseg demo
    """
    from volseg.cli.progress import PredictionBar, TrainingBar
    from volseg.demo import (
        PACKAGED,
        DemoFolder,
        draw,
        learn,
        make_data,
        map_and_score,
        map_with_packaged,
        score_section,
    )

    files = DemoFolder(folder)
    files.clear(overwrite=overwrite)
    click.echo("1. Two volumes of synthetic neuropil, with ground truth")
    make_data(files)
    click.echo(f"2. Train a small FusionNet on the first, in {counted(steps, 'step')}")
    with TrainingBar() as training_bar:
        learn(files, steps, training_bar)
    click.echo("3. Predict the second, in blocks, on a local Dask cluster")
    with PredictionBar() as prediction_bar:
        scores = map_and_score(files, prediction_bar)
    click.echo(f"4. Scored against the truth: F1 {scores.f1:.3f}, average precision {scores.average_precision:.3f}")
    click.echo(f"5. A section by the packaged model {PACKAGED}, which was trained on real tissue only")
    packaged = map_with_packaged(files)
    own = score_section(files)
    draw(files, own, packaged)
    click.echo(
        f"   F1 {packaged.f1:.3f}, average precision {packaged.average_precision:.3f}; trained here: F1 {own.f1:.3f}"
    )
    if own.f1 < packaged.f1:
        click.echo("   The network that was trained here is worse: train it longer, with more --steps")
    click.echo(f"   Picture: {files.picture}")
    click.echo("   In Neuroglancer:")
    click.echo(f"     volseg view {files.raw} {files.probability}")
