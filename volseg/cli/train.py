"""`volseg train`."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from volseg.cli.stop import STOPPED, ignore_stops
from volseg.system import STOP_SIGNALS


@click.command(short_help="Train a network on labelled sections.")
@click.argument("run", metavar="RUN.toml", type=click.Path(path_type=Path))
@click.option("--set", "assignments", metavar="KEY=VALUE", multiple=True,
              help="Override a key of the run file, such as fit.steps=500; repeatable.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Continue from the checkpoint in the output folder, if there is one.")
@click.option("--print-config", is_flag=True, help="Print the run file with every key and its description, and exit.")
def train(run: Path, assignments: tuple[str, ...], resume: bool, print_config: bool) -> None:
    """Train a network on labelled sections by the settings of RUN.toml.

    Writes the best model and the last one, a checkpoint, log.jsonl, curves.png and pictures of validation sections into
    the output folder. Ctrl-C stops after the current step; --resume continues.

    \b
    A run file; --print-config shows the defaults of all other keys:
      [data]                          # or [[data]] for each of several volumes
      raw = "train-volume.tif"        # Zarr, HDF5 (FILE.h5:DATASET), TIFF, or folder of sections
      labels = "train-labels.tif"
      membrane = "zero"               # label 0 is membrane; "nonzero": a mask; "boundaries": ids that touch
      voxel_nm = [50, 4, 4]
      train = [0, 20]                 # sections to train on
      validation = [20, 24]           # sections that select the best step
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
      torchrun --nproc-per-node 4 -m volseg train run.toml      (one GPU per process)
    """
    from volseg.config import TrainConfig, as_toml, read_toml

    config = read_toml(run, TrainConfig, assignments)
    if print_config:
        click.echo(as_toml(config), nl=False)
        return
    from volseg.cli.progress import TrainingBar
    from volseg.training.run import is_rank_zero
    from volseg.training.run import train as fit

    with TrainingBar() as bar:
        result = fit(config, bar, resume=resume, should_stop=_StopSignal())
    if not result.finished:
        if is_rank_zero():
            click.echo(f"Stopped after {result.steps} steps. To continue: volseg train {run} --resume", err=True)
        raise SystemExit(STOPPED)
    if not is_rank_zero():
        return
    name = config.validation.score
    score = f", best {name} {result.card.training[f'validation_{name}']:.4f}" if result.best else ""
    speed = f"{result.steps} steps in {result.seconds:.0f} s, {result.wait_fraction:.1%} of it waiting for data"
    click.echo(f"{config.output.model}: {speed}{score}")


class _StopSignal:
    """Whether Ctrl-C, SIGTERM or SIGHUP was received; the second one interrupts the current step."""

    def __init__(self) -> None:
        self._is_received = False
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: object) -> None:
        if self._is_received:
            ignore_stops()
            raise KeyboardInterrupt
        self._is_received = True
        click.echo("Stopping after this step ..", err=True)

    def __call__(self) -> bool:
        return self._is_received
