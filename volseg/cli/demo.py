"""`volseg demo`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("volseg-demo"))
@click.option("--seconds", type=click.IntRange(min=1), default=75, show_default=True, help="How long to train.")
@click.option("--overwrite", is_flag=True, help="Replace what an earlier demo left in FOLDER.")
def demo(folder: Path, seconds: int, overwrite: bool) -> None:
    """The whole journey in minutes, on generated EM with ground truth.

    Makes two volumes of synthetic neuropil, trains a small FusionNet on the first, predicts the second (which it never
    saw) block by block on a local Dask cluster, scores it, shows what a packaged model makes of it, and saves a
    picture. Needs no data, no GPU, no network.

    \b
    Example:
      volseg demo
    """
    from volseg.cli.progress import ProgressBar, TrainingScreen
    from volseg.demo import PACKAGED, DemoFolder, draw, learn, make_data, map_and_score, map_with_packaged

    place = DemoFolder(folder)
    place.clear(overwrite=overwrite)
    click.echo("1. Two volumes of synthetic neuropil, with ground truth")
    make_data(place)
    click.echo(f"2. Train a small FusionNet on the first, for {seconds} s")
    with TrainingScreen() as screen:
        learn(place, seconds, screen)
    click.echo("3. Predict the second, in blocks, on a local Dask cluster")
    with ProgressBar() as shown:
        scores = map_and_score(place, shown)
    click.echo(f"4. Scored against the truth: F1 {scores.f1:.3f}, average precision {scores.average_precision:.3f}")
    click.echo(f"5. A section by the packaged model {PACKAGED}, trained on real tissue alone")
    packaged = map_with_packaged(place)
    draw(place, scores, packaged)
    click.echo(f"   F1 {packaged.f1:.3f}, average precision {packaged.average_precision:.3f}")
    click.echo(f"   Picture: {place.picture}")
    click.echo("   In Neuroglancer:")
    click.echo(f"     volseg view {place.raw} {place.probability}")
