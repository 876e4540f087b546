"""`volseg predict`."""

from __future__ import annotations

import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from volseg.cli.options import HaloType, ToleranceType, ZyxType

if TYPE_CHECKING:
    from volseg.prediction.prepare import RunSpec
    from volseg.prediction.run import Summary


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--model", required=True, multiple=True, metavar="MODEL",
              help="A model file, or the name of a packaged model; several are averaged.")  # fmt: skip
@click.option("--block", type=ZyxType(), help="What one task writes, in voxels.  [default: slabs of 1024 x 1024]")
@click.option("--halo", type=HaloType(), metavar="auto|exact|Z,Y,X", default="auto", show_default=True,
              help="Context read around a block. exact: no seams. auto: the smallest that will do.")  # fmt: skip
@click.option("--halo-tolerance", type=ToleranceType(), metavar="PERCENT,LEVELS",
              help="For auto: voxels within one grey level, the most any may be off.  [default: 99.9,8]")  # fmt: skip
@click.option("--orientations", type=click.Choice(["one", "flips", "all"]), default="one", show_default=True,
              help="Average over the section's 4 flips, or all 8 orientations.")  # fmt: skip
@click.option("--classes", metavar="auto|all|NAME,..", default="auto", show_default=True,
              help="What to write; several along a channel axis. auto: membrane, or all without it.")  # fmt: skip
@click.option("--uncertainty", is_flag=True,
              help="Write TARGET/uncertainty too: the estimates' standard deviation, x 255.")  # fmt: skip
@click.option("--tile", type=ZyxType(),
              help="What one forward pass makes, halo aside.  [default: the fastest that fits the memory]")  # fmt: skip
@click.option("--scale-level", type=click.IntRange(min=0), help="Read this level of an OME-Zarr SOURCE.  [default: 0]")
@click.option("--shard", type=ZyxType(), help="The target's unit of storage.  [default: the block]")
@click.option("--chunk", type=ZyxType(), help="What viewers fetch at once.  [default: about 64^3 voxels]")
@click.option("--roi", metavar="z0:z1,y0:y1,x0:x1", help="Do this region only; it grows to whole shards.")
@click.option("--mask", metavar="PATH",
              help="Skip blocks in which this volume, of the source's size or coarser, is 0.")  # fmt: skip
@click.option("--ignore-voxel-size", is_flag=True, help="Run on voxels that the model was not trained for.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), default="auto",
              show_default=True, help="auto: float16 on GPUs, bfloat16 on processors that have it, else float32; "
                                      "as far as it rounds little.")  # fmt: skip
@click.option("--cluster", default="local", show_default=True, metavar="serial|local|tcp://HOST:PORT",
              help="This process, worker processes of this machine, or a Dask scheduler.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), help="Local worker processes.  [default: one a GPU, else two]")
@click.option("--resume", is_flag=True, help="Finish a run that was stopped; start one where there is none.")
@click.option("--overwrite", is_flag=True, help="Replace a TARGET that exists.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and stop.")
@click.option("--calibrate", is_flag=True,
              help="With --dry-run: let a worker do a block or two, unwritten, and say what a run takes.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on standard output.")
def predict(dry_run: bool, calibrate: bool, as_json: bool, **options: Any) -> None:
    """Write the membrane probability map of a volume.

    SOURCE is a Zarr 2 or 3 array or an OME-Zarr, axes z, y, x, local or behind a URL. TARGET becomes an OME-Zarr 0.5
    group of the same shape: uint8, probability x 255, 255 = membrane. Blocks are computed by Dask workers; one that
    fails is tried again on another worker. Ctrl-C leaves a TARGET that --resume finishes.

    \b
    Examples:
      volseg predict raw.zarr membrane.zarr --model model.safetensors
      volseg predict raw.zarr membrane.zarr --model model.safetensors --resume
      volseg predict raw.zarr membrane.zarr --model model.safetensors --dry-run --calibrate
      volseg predict raw.zarr corner.zarr --model model.safetensors --roi 0:16,:,:
      volseg predict raw.zarr membrane.zarr --model model.safetensors --mask tissue.zarr
      volseg predict raw.zarr mean.zarr --model a.safetensors --model b.safetensors --orientations all --uncertainty
      volseg predict s3://bucket/raw.zarr membrane.zarr --model model.safetensors --cluster tcp://head:8786
    """
    from volseg.cli.progress import ProgressBar
    from volseg.config import PredictConfig, checked
    from volseg.errors import ConfigError
    from volseg.prediction.prepare import prepare
    from volseg.prediction.run import execute

    if calibrate and not dry_run:
        raise ConfigError("--calibrate is for --dry-run; give both, or leave it out")
    prepared = prepare(checked(PredictConfig, options, "predict"))
    for warning in prepared.plan.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if dry_run:
        _print_plan(prepared, calibrated=calibrate, as_json=as_json)
        return
    _interrupt_on_terminate()
    try:
        with ProgressBar() as shown:
            summary = execute(prepared, shown)
    except KeyboardInterrupt:
        click.echo(
            f"Stopped. To finish {options['target']}, give the same command with --resume (and without --overwrite).",
            err=True,
        )
        raise SystemExit(1) from None
    _print_summary(summary, as_json=as_json)
    raise SystemExit(3 if summary.failed else 0)


def _interrupt_on_terminate() -> None:
    """Treat a batch system's SIGTERM like Ctrl-C: marks are kept, workers stopped, the way on is named."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _print_plan(prepared: RunSpec, *, calibrated: bool, as_json: bool) -> None:
    from volseg.cli.output import echo_json
    from volseg.cli.progress import ProgressBar
    from volseg.prediction.dry_run import estimate_peak_memory, estimate_run

    if calibrated:
        from volseg.prediction.calibrate import calibrate

        with ProgressBar() as shown:
            figures = calibrate(prepared, shown)
    else:
        figures = estimate_run(prepared) | estimate_peak_memory(prepared)
    if as_json:
        echo_json(figures)
        return
    for name, value in figures.items():
        click.echo(f"{name.replace('_', ' '):>24}  {value}")


def _print_summary(summary: Summary, *, as_json: bool) -> None:
    from volseg.cli.output import echo_json

    if as_json:
        echo_json(asdict(summary))
        return
    skipped = ", ".join(f"{count} {reason}" for reason, count in summary.skipped.items() if count)
    told = f" (skipped: {skipped})" if skipped else ""
    if not summary.done and not summary.failed:
        click.echo(
            f"{summary.target}: {summary.already_done} of {summary.blocks} blocks were done before{told}; "
            "nothing was left to do"
        )
        return
    rate = summary.voxels / max(summary.seconds, 1e-9) / 1e6
    before = f" ({summary.already_done} were done before)" if summary.already_done else ""
    busy = f", devices {sum(summary.busy.values()) / len(summary.busy):.0%} busy" if summary.busy else ""
    click.echo(
        f"{summary.target}: {summary.done} of {summary.blocks} blocks{before}{told}, {summary.voxels / 1e6:.1f} Mvoxel "
        f"in {summary.seconds:.1f} s, {rate:.2f} Mvoxel/s, read amplification {summary.read_amplification:.2f}{busy}"
    )
    for number, reason in summary.failed.items():
        click.echo(f"failed: {reason if f'block {number}' in reason else f'block {number}: {reason}'}", err=True)
    if summary.failed:
        click.echo(f"{len(summary.failed)} blocks failed; mend the cause and give --resume", err=True)
