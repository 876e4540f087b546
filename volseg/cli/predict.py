"""`volseg predict`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

import click

from volseg.cli.cluster_options import cluster_options
from volseg.cli.cost import cost_lines
from volseg.cli.options import HaloType, LevelsType, NanometresType, PartType, ToleranceType, ZyxType, reading_options
from volseg.cli.stop import STOPPED
from volseg.text import counted

if TYPE_CHECKING:
    from volseg.config import Prices
    from volseg.prediction.cost import RunCost
    from volseg.prediction.prepare import RunSpec
    from volseg.prediction.summary import Summary
    from volseg.storage import RunRecord

_ALL_EMPTY = (
    "every block is empty: each holds a single grey value in the source, so the map is all 0. If there should be "
    "tissue, the chunks may lie elsewhere than the metadata say (a wrong dimension_separator) or be lost, or another "
    "--scale-level, --roi or --mask was meant"
)

_UNEXPLAINED = (
    "read chunks that the server does not have, and it does not list what it has: the source counts as their fill "
    "value there. --resume reads these blocks again; --missing-chunks fill accepts them"
)


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--model", required=True, multiple=True, metavar="MODEL",
              help="A model file, or the name of a packaged model; repeat it to average several models.")  # fmt: skip
@click.option("--block", type=ZyxType(), help="Voxels that one task writes.  [default: slabs of 1024 x 1024]")
@click.option("--halo", type=HaloType(), metavar="auto|exact|Z,Y,X", default="auto", show_default=True,
              help="Voxels read around a block. exact: no seams. auto: smallest within tolerance.")  # fmt: skip
@click.option("--halo-tolerance", type=ToleranceType(), metavar="PERCENT,LEVELS",
              help="For auto: % of voxels within one grey level, maximum error.  [default: 99.9,8]")  # fmt: skip
@click.option("--orientations", type=click.Choice(["one", "flips", "all"]), default="one", show_default=True,
              help="Average over 4 flips of the section, or all 8 orientations.")  # fmt: skip
@click.option("--classes", metavar="auto|all|NAME,..", default="auto", show_default=True,
              help="Classes to write, several as channels. auto: membrane, or all if there is none.")  # fmt: skip
@click.option("--uncertainty", is_flag=True,
              help="Also write TARGET/uncertainty: standard deviation of the estimates, x 255.")  # fmt: skip
@click.option("--tile", type=ZyxType(),
              help="Output voxels of one forward pass.  [default: the fastest that fits the memory]")  # fmt: skip
@click.option(
    "--scale-level",
    type=click.IntRange(min=0),
    metavar="N",
    help="Read this level of an OME-Zarr SOURCE.  [default: 0]",
)
@reading_options
@click.option("--missing-chunks", type=click.Choice(["fill", "refuse"]),
              help="For chunks that a Zarr lacks.  [default: fill; over http, exit code 3]")  # fmt: skip
@click.option("--shard", type=ZyxType(), help="Voxels of one file of TARGET.  [default: the block]")
@click.option("--chunk", type=ZyxType(), help="Voxels that viewers fetch at once.  [default: about 64^3]")
@click.option("--levels", type=LevelsType(), metavar="auto|N", default="auto", show_default=True,
              help="Coarser levels for viewers. auto: down to 512 voxels; 0: none.")  # fmt: skip
@click.option("--roi", metavar="z0:z1,y0:y1,x0:x1", help="Predict this region only; it grows to whole shards.")
@click.option("--mask", metavar="PATH",
              help="Skip blocks in which this volume, of the size of SOURCE or coarser, is 0.")  # fmt: skip
@click.option("--voxel-size", type=NanometresType(),
              help="Voxel size of SOURCE in nanometres, if it states none or a wrong one.")  # fmt: skip
@click.option("--ignore-voxel-size", is_flag=True, help="Accept a voxel size that the model was not trained for.")
@click.option("--at-model-size", type=click.Choice(["model", "source"]),
              help="Resample SOURCE to the model's voxel size; the map has that size, or SOURCE's.")  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "any", "cpu", "cuda"]), default="auto", show_default=True,
              help="Where the network runs. auto: on GPUs if there are any; any: on CPUs beside them too.")  # fmt: skip
@click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), default="auto",
              show_default=True, help="auto: float16 on GPUs, bfloat16 on CPUs with hardware support, else float32; "
                                      "a higher one if the measured error is too large.")  # fmt: skip
@cluster_options(workers="one per GPU, or two")
@click.option("--part", type=PartType(), metavar="K/N",
              help="Compute part K of N; other drivers, such as jobs of an array, compute the others.")  # fmt: skip
@click.option("--max-failed", type=click.IntRange(min=0), metavar="N",
              help="End the run if more blocks fail.  [default: 16, or 1 % of the blocks]")  # fmt: skip
@click.option("--block-timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
              help="Send a block elsewhere after so long.  [default: 10 times the mean, at least 120]")  # fmt: skip
@click.option("--resume", is_flag=True, help="Finish a run that was stopped; start one if there is none.")
@click.option("--overwrite", is_flag=True, help="Replace an existing TARGET.")
@click.option("--dry-run", is_flag=True, help="Print what the run would read, compute and write, and exit.")
@click.option("--calibrate", is_flag=True,
              help="With --dry-run: measure time and memory with some blocks, deleted afterwards.")  # fmt: skip
@click.option("--prices", metavar="FILE.toml",
              help="A price table: also show money, after the run or with --calibrate.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the summary or the plan as JSON on standard output.")
def predict(dry_run: bool, calibrate: bool, prices: str | None, as_json: bool, **options: Any) -> None:
    """Write the membrane probability map of a volume.

    SOURCE is a Zarr, OME-Zarr, N5 or precomputed volume, local or a URL, FILE.h5:DATASET, a TIFF, a folder of sections
    or a pattern of their names, an MRC, NRRD or NIfTI file, or a WEBKNOSSOS layer. TARGET becomes an OME-Zarr 0.5 group
    of the same shape: uint8, probability x 255, 255 = membrane. Dask workers compute the blocks; a failed block is sent
    again, to another worker. After Ctrl-C, --resume finishes TARGET.

    \b
    Examples:
      volseg predict raw.zarr membrane.zarr --model model.safetensors
      volseg predict raw.zarr membrane.zarr --model model.safetensors --resume
      volseg predict raw.zarr membrane.zarr --model model.safetensors --dry-run --calibrate
      volseg predict raw.zarr corner.zarr --model model.safetensors --roi 0:16,:,:
      volseg predict raw-4nm.zarr membrane-6nm.zarr --model model.safetensors --at-model-size model
      volseg predict raw.zarr membrane.zarr --model model.safetensors --mask tissue.zarr
      volseg predict raw.zarr mean.zarr --model a.safetensors --model b.safetensors --orientations all --uncertainty
      volseg predict s3://bucket/raw.zarr membrane.zarr --model model.safetensors --cluster tcp://head:8786
    """
    from volseg.cli.progress import PredictionBar
    from volseg.config import PredictConfig, read_prices, validate
    from volseg.errors import ConfigError
    from volseg.prediction.parts import WAITING_FOR_TARGET, prepared
    from volseg.prediction.run import execute

    config = validate(PredictConfig, options, "predict")
    if (calibrate and not dry_run) or (dry_run and config.part is not None):
        raise ConfigError(
            "--dry-run plans the whole run; leave --part out"
            if dry_run
            else "--calibrate needs --dry-run; give both, or leave it out"
        )
    if prices is not None and dry_run and not calibrate:
        raise ConfigError("--prices with --dry-run needs --calibrate, which measures the hours; give all three")
    table = None if prices is None else read_prices(prices)
    try:
        with prepared(config, lambda: click.echo(WAITING_FOR_TARGET, err=True)) as (spec, recorded, on_ready):
            for warning in spec.plan.warnings:
                click.echo(f"Warning: {warning}", err=True)
            if dry_run:
                _print_plan(spec, recorded, calibrated=calibrate, prices=table, as_json=as_json)
                return
            with PredictionBar() as bar:
                summary = execute(spec, recorded, bar, part=config.part, on_ready=on_ready)
    except KeyboardInterrupt:
        click.echo(
            f"Stopped. To finish {options['target']}, rerun the command with --resume (and without --overwrite).",
            err=True,
        )
        raise SystemExit(STOPPED) from None
    _tell(summary, table, as_json=as_json)


def _tell(summary: Summary, prices: Prices | None, *, as_json: bool) -> NoReturn:
    from volseg.cli.output import echo_json

    cost = None if prices is None else _cost_of(summary, prices)
    if as_json:
        echo_json(asdict(summary) | ({"cost": asdict(cost)} if cost else {}))
    else:
        _print_summary(summary)
        for line in cost_lines(cost) if cost else ():
            click.echo(line)
    if summary.all_empty:
        click.echo(f"Warning: {_ALL_EMPTY}", err=True)
    if summary.unexplained:
        click.echo(f"Warning: {counted(summary.unexplained, 'block')} {_UNEXPLAINED}", err=True)
    raise SystemExit(3 if summary.failed or summary.unexplained else 0)


def _cost_of(summary: Summary, prices: Prices) -> RunCost | None:
    """What a run took, in money; the map is right even if the price table does not fit."""
    from volseg.errors import ConfigError
    from volseg.prediction.cost import run_cost
    from volseg.storage import target_path

    try:
        return run_cost(target_path(summary.target), prices)
    except ConfigError as error:
        click.echo(f"Warning: {error}; then: volseg status {summary.target} --cost --prices FILE.toml", err=True)
        return None


def _print_plan(
    spec: RunSpec, recorded: RunRecord | None, *, calibrated: bool, prices: Prices | None, as_json: bool
) -> None:
    from volseg.cli.output import echo_json
    from volseg.cli.quotation import quotation
    from volseg.prediction.dry_run import estimate_peak_memory, estimate_run

    if calibrated:
        from volseg.cli.progress import CalibrationBar
        from volseg.prediction.calibrate import calibrate
        from volseg.prediction.cost import planned_money

        with CalibrationBar() as bar:
            estimate, measured = calibrate(spec, recorded, bar, prices)
        fields = asdict(estimate) | asdict(measured)
        if prices is not None:
            fields["money"] = asdict(planned_money(prices, estimate, measured))
    else:
        peak = estimate_peak_memory(spec, recorded)
        fields = asdict(estimate_run(spec, recorded)) | asdict(peak) | {"seconds_for_the_run": None}
    if as_json:
        echo_json(fields)
        return
    click.echo(quotation(fields))


def _print_part(summary: Summary) -> None:
    """Say what is left of the parts of a run when one has ended."""
    if summary.part is None:
        return
    left = f"{counted(summary.left, 'block')} of other parts are not done"
    done = "all parts are done" + (" but for the coarser levels" if summary.coarser_left else "")
    click.echo(f"part {summary.part}: {left if summary.left else done}")


def _print_summary(summary: Summary) -> None:
    from volseg.cli.output import echo_repeats

    skipped = ", ".join(f"{count} {reason}" for reason, count in summary.skipped.items() if count)
    skipped_text = f" (skipped: {skipped})" if skipped else ""
    if summary.lacking:
        skipped_text += f" ({summary.lacking} read missing chunks)"
    if not summary.done and not summary.failed:
        click.echo(
            f"{summary.target}: {summary.already_done} of {counted(summary.blocks, 'block')} done before"
            f"{skipped_text}; nothing was left to do"
        )
        _print_part(summary)
        return
    rate = summary.voxels / max(summary.seconds, 1e-9) / 1e6
    before = f" ({summary.already_done} done before)" if summary.already_done else ""
    busy = f", devices {sum(summary.busy.values()) / len(summary.busy):.0%} busy" if summary.busy else ""
    click.echo(
        f"{summary.target}: {summary.done} of {counted(summary.blocks, 'block')}{before}{skipped_text}, "
        f"{summary.voxels / 1e6:.1f} Mvoxel in {summary.seconds:.1f} s, {rate:.2f} Mvoxel/s, "
        f"read amplification {summary.read_amplification:.2f}{busy}"
    )
    echo_repeats(summary.repeats)
    _print_part(summary)
    for number, reason in summary.failed.items():
        click.echo(f"failed: {reason if f'block {number}' in reason else f'block {number}: {reason}'}", err=True)
    if summary.failed:
        click.echo(f"{counted(len(summary.failed), 'block')} failed; fix the cause, then rerun with --resume", err=True)
