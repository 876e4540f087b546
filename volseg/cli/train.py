"""`volseg train`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", metavar="RUN.toml", type=click.Path(path_type=Path))
def train(run: Path) -> None:
    """Train a network on labelled sections, as RUN.toml says.

    Writes a model file, log.jsonl, curves.png and validation.png into the run's output folder. The step that scores
    best on the validation sections is kept.

    \b
    A run file:
      [data]
      raw = "train-volume.tif"        # TIFF, folder of sections, or Zarr
      labels = "train-labels.tif"
      membrane = "zero"               # label 0 is membrane; "nonzero" for a membrane mask
      voxel_nm = [50, 4, 4]
      train = [0, 20]                 # sections to learn from
      validation = [20, 24]           # sections to select the best step on
      [network]
      name = "fusionnet"
      arguments = { width = 16 }
      [fit]
      minutes = 10
      steps = 2000
      [output]
      folder = "runs/isbi"
    \b
    Example:
      volseg train run.toml
    """
    from volseg.cli.training_screen import TrainingScreen
    from volseg.fitting import train as fit
    from volseg.runfiles import TrainConfig, read_toml

    config = read_toml(run, TrainConfig)
    try:
        with TrainingScreen() as screen:
            header, trained = fit(config, screen)
    except KeyboardInterrupt:
        click.echo("Stopped before the end; no model was written.", err=True)
        raise SystemExit(1) from None
    score = f", validation F1 {trained.best.best_f1:.4f}" if trained.best else ""
    click.echo(f"{header.path}: {len(trained.losses)} steps in {trained.seconds:.0f} s{score}")
