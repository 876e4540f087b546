"""The plan of a run in words: `predict --dry-run`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from volseg.blocks import format_zyx
from volseg.cli.cost import hours, money_text
from volseg.cli.output import bytes_text, value_text
from volseg.prediction.cost import Money
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_WIDTH = 8
_DISPLAYED_SECONDS = 90


def quotation(fields: Mapping[str, Any]) -> str:
    """Lines that say what a run reads, computes and writes, and what it takes.

    Args:
        fields: of a `RunEstimate` and of a `PeakEstimate` or a `Calibration`.
    """
    lines: list[str] = []
    for name, parts in _rows(fields):
        heading = name
        for part in parts:
            lines.append(f"{heading:<{_WIDTH}}{part}")
            heading = ""
    return "\n".join(lines)


def _rows(fields: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Heading and lines of each topic."""
    yield (
        "source",
        [
            value_text(fields["source"]),
            f"{_by(fields['shape'])} voxels of {_nm(fields['voxel_nm'])}, {fields['dtype']}",
            *([fields["resampled"]] if fields["resampled"] else []),
        ],
    )
    models = zip(fields["models"], fields["models_voxel_nm"], strict=True)
    yield "model", [f"{value_text(name)}, trained on voxels of {_nm(size)}" for name, size in models]
    yield "target", list(_target(fields))
    yield "blocks", list(_blocks(fields))
    halos = fields.get("halos") or [fields["halo"]]
    yield "halo", [f"{_each(map(_by, halos))} voxels ({fields['halo_is']})"]
    yield "work", list(_work(fields))
    reads, writes = (_requests(fields[name]) for name in ("requests_to_read", "requests_to_write"))
    decoded = f"each chunk is decoded {fields['read_amplification']:g} times"
    yield "reads", [f"{bytes_text(fields['bytes_to_read'])} uncompressed{reads}; {decoded}"]
    stored = f", {bytes_text(fields['bytes_stored'])} stored" if "bytes_stored" in fields else ""
    yield "writes", [f"{bytes_text(fields['bytes_to_write'])} uncompressed{stored}{writes}"]
    yield "memory", list(_memory(fields))
    yield "time", list(_time(fields))
    yield "cost", list(_cost(fields))


def _target(fields: Mapping[str, Any]) -> Iterator[str]:
    deviation = " and their standard deviation" if fields["uncertainty"] else ""
    yield value_text(fields["target"])
    yield f"uint8 of {', '.join(fields['classes'])}{deviation}, region {fields['region']} of the source"
    yield f"shards of {_by(fields['shard'])}, chunks of {_by(fields['chunk'])}"
    if fields["levels"]:
        yield f"coarser levels, by {', '.join(map(_by, fields['levels']))}"


def _blocks(fields: Mapping[str, Any]) -> Iterator[str]:
    yield f"{counted(fields['blocks'], 'block')} of {_by(fields['block'])} voxels, {fields['blocks_to_do']} to do"
    if fields["blocks_done_before"]:
        yield f"{fields['blocks_done_before']} done before"
    if fields["mask"] is not None:
        yield f"{fields['blocks_outside_the_mask']} outside the mask {value_text(fields['mask'])}"


def _work(fields: Mapping[str, Any]) -> Iterator[str]:
    estimates = counted(fields["estimates_averaged"], "estimate")
    yield f"{estimates} of each voxel; {fields['read_for_each_written']:g} voxels read for each one written"
    if fields["flops_per_voxel"] is not None:
        yield f"{fields['flops_per_voxel'] / 1e3:,.4g} GFLOP for each million voxels of the map, halos included"


def _memory(fields: Mapping[str, Any]) -> Iterator[str]:
    if (peak := fields["predicted_peak_bytes"]) is not None:
        measured = _measured(fields, "measured_peak_bytes")
        in_flight = _mib(fields["bytes_of_blocks_in_flight"])
        yield f"{_mib(peak)} for a worker{measured}; the blocks that it holds at once need {in_flight}"
    if fields["predicted_gpu_peak_bytes"]:
        measured = _measured(fields, "measured_gpu_peak_bytes")
        yield f"{_mib(fields['predicted_gpu_peak_bytes'])} on its GPU{measured}"
    if "peak_is" in fields:
        yield fields["peak_is"]


def _measured(fields: Mapping[str, Any], name: str) -> str:
    return f" ({_mib(fields[name])} measured)" if fields.get(name) else ""


def _time(fields: Mapping[str, Any]) -> Iterator[str]:
    if fields["seconds_for_the_run"] is None:
        yield "unknown; --calibrate measures it on a worker"
        return
    low, _, high = fields["seconds_interval"]
    between = f"{_duration(low)} to {_duration(high)} in four runs of five"
    yield f"about {_duration(fields['seconds_for_the_run'])} on {counted(fields['workers'], 'worker')}; {between}"
    yield f"{_duration(fields['seconds_to_start'])} before the first block"
    yield f"{fields['kvoxel_s_of_a_worker']:g} kvoxel/s and {fields['seconds_a_block']:g} s a block on each"
    tiles, batches = _each(map(_by, fields["tiles"])), _each(map(str, fields["batches"]))
    if (block := fields["block_for_the_driver"]) is not None:
        yield f"{fields['blocks_a_second']:,.0f} blocks a second are more than one driver marks; with --block " + (
            f"{format_zyx(block)} it keeps up"
        )
    yield f"{fields['precision']} on {fields['device'].upper()}, tiles of {tiles} in batches of {batches}"


def _cost(fields: Mapping[str, Any]) -> Iterator[str]:
    """Hours of workers, and money if there are prices."""
    if fields["seconds_for_the_run"] is None:
        return
    low, middle, high = fields["worker_hours"]
    yield f"{hours(middle)} ({low:.3g} to {high:.3g}) of {fields['kind']}, by {counted(fields['sampled'], 'block')}"
    if "money" in fields:
        yield money_text(Money(**fields["money"]))


def _requests(count: int) -> str:
    return f" in about {counted(count, 'request')}" if count else ""


def _each(values: Iterable[str]) -> str:
    """The value of each model, or that of all."""
    return " and ".join(dict.fromkeys(values))


def _by(zyx: Sequence[float]) -> str:
    return " x ".join(f"{side:g}" for side in zyx)


def _nm(voxel_nm: Sequence[float] | None) -> str:
    return "unknown size" if voxel_nm is None else f"{_by(voxel_nm)} nm"


def _mib(size: int) -> str:
    return f"{max(1, round(size / 2**20)):,} MiB"


def _duration(seconds: float) -> str:
    """A time in words.

    >>> _duration(3.25), _duration(200), _duration(90_000)
    ('3.2 s', '0:03:20', '1 day, 1:00:00')
    """
    return f"{seconds:.2g} s" if seconds < _DISPLAYED_SECONDS else str(timedelta(seconds=round(seconds)))
