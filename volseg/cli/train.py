"""`volseg train`."""

from __future__ import annotations

import signal
from pathlib import Path

import click


@click.command()
@click.argument("run", metavar="RUN.toml", type=click.Path(path_type=Path))
@click.option("--set", "assignments", metavar="KEY=VALUE", multiple=True,
              help="Set a key otherwise than the run file, such as fit.steps=500; may be given again.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in the output folder, if there is one.")
@click.option("--print-config", is_flag=True, help="Print the run file with every key and what it does; train nothing.")
def train(run: Path, assignments: tuple[str, ...], resume: bool, print_config: bool) -> None:
    """Train a network on labelled sections, as RUN.toml says.

    Writes into the run's output folder the best model and the last one, a checkpoint to go on from, log.jsonl,
    curves.png and pictures of held-out sections. Ctrl-C stops after the step under way; --resume goes on.

    \b
    A run file; all that it leaves out has a default, which --print-config shows:
      [data]                          # or [[data]] for each of several volumes
      raw = "train-volume.tif"        # Zarr, HDF5 (FILE.h5:DATASET), TIFF, or folder of sections
      labels = "train-labels.tif"
      membrane = "zero"               # label 0 is membrane; "nonzero": a mask; "boundaries": ids that touch
      voxel_nm = [50, 4, 4]
      train = [0, 20]                 # sections to learn from
      validation = [20, 24]           # sections to select the best step on
      [network]
      name = "fusionnet"
      arguments = { width = 16 }
      [fit]
      minutes = 30
      steps = 100000
      [output]
      folder = "runs/isbi"
    \b
    Examples:
      volseg train run.toml
      volseg train run.toml --set fit.minutes=60 --set network.arguments.width=32
      volseg train run.toml --resume
      torchrun --nproc-per-node 4 -m volseg train run.toml      (a GPU for each process)
    """
    from volseg.config import TrainConfig, as_toml, read_toml

    config = read_toml(run, TrainConfig, assignments)
    if print_config:
        click.echo(as_toml(config), nl=False)
        return
    from volseg.cli.progress import TrainingScreen
    from volseg.training.run import is_rank_zero
    from volseg.training.run import train as fit

    with TrainingScreen() as screen:
        trained = fit(config, screen, resume=resume, stopping=_Stop())
    if not trained.finished:
        if is_rank_zero():
            click.echo(f"Stopped after {trained.steps} steps; volseg train {run} --resume goes on.", err=True)
        raise SystemExit(1)
    if not is_rank_zero():
        return
    name = config.validation.score
    score = f", best {name} {trained.card.training[f'validation_{name}']:.4f}" if trained.best else ""
    speed = f"{trained.steps} steps in {trained.seconds:.0f} s, {trained.waited:.1%} of it waiting for data"
    click.echo(f"{config.output.model}: {speed}{score}")


class _Stop:
    """Whether Ctrl-C or SIGTERM came; a second one does not wait for the step under way."""

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        click.echo("Stopping after this step ..", err=True)

    def __call__(self) -> bool:
        return self._asked
