"""`volseg status`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from volseg.cli.cost import cost_lines
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volseg.prediction.status import RunStatus
    from volseg.storage import FailedBlock

_SHOWN = 10
"""Numbers of failed blocks that are listed for one reason."""


@click.command(short_help="Show how far a run is, and which blocks failed.")
@click.argument("target")
@click.option("--traceback", is_flag=True, help="Also print the traceback of each kind of failure.")
@click.option("--cost", is_flag=True, help="Also show worker hours, attempts that failed, bytes and requests.")
@click.option("--prices", metavar="FILE.toml", help="With --cost: a price table, to show money.")
@click.option("--json", "as_json", is_flag=True, help="Print the state as JSON on standard output.")
def status(target: str, traceback: bool, cost: bool, prices: str | None, as_json: bool) -> None:
    """Show the state of a `volseg predict`, from its TARGET alone; the run may go on meanwhile.

    Exit codes: 0, or 3 if blocks failed.

    \\b
    Examples:
      volseg status membrane.zarr
      volseg status membrane.zarr --json
      volseg status membrane.zarr --cost --prices prices.toml
      volseg status s3://bucket/membrane.zarr
    """
    from volseg.cli.output import echo_json
    from volseg.config import read_prices
    from volseg.errors import ConfigError
    from volseg.prediction.cost import run_cost
    from volseg.prediction.status import run_status
    from volseg.storage import target_path

    if prices is not None and not cost:
        raise ConfigError("--prices needs --cost; give both, or leave it out")
    table = None if prices is None else read_prices(prices)
    found = run_status(target_path(target))
    spent = run_cost(target_path(target), table) if cost else None
    if as_json:
        echo_json(found.to_json() | ({"cost": asdict(spent)} if spent else {}))
    else:
        for line in _lines(found, traceback=traceback):
            click.echo(line)
        for line in cost_lines(spent) if spent else ():
            click.echo(line)
    raise SystemExit(3 if found.failed else 0)


def _lines(found: RunStatus, *, traceback: bool) -> Iterator[str]:
    fraction = found.done / found.blocks if found.blocks else 1.0
    yield f"{found.target}: {found.state}, {found.done} of {counted(found.blocks, 'block')} done ({fraction:.1%})"
    yield f"  source      {found.source}"
    yield f"  model       {', '.join(found.models)}"
    yield f"  started     {found.created}, by volseg {found.version}"
    if found.seconds_since_mark is not None:
        yield f"  last mark   {timedelta(seconds=int(found.seconds_since_mark))} ago"
    if found.seconds_per_block is not None:
        yield f"  a block     {found.seconds_per_block:.3g} s on its worker, on average"
    for kind, number in sorted(found.kinds.items()):
        yield f"  computed    {number} on {kind}"
    details = {
        "empty": found.empty,
        "outside the mask": found.outside,
        "read missing chunks": found.lacking,
        "took more than one attempt": found.retried,
        "marks are damaged; their blocks count as not done": found.damaged,
        "failed": len(found.failed),
    }
    yield from (f"  {number:<11} {name}" for name, number in details.items() if number)
    yield from _failures(found.failed, traceback=traceback)
    if found.state == "stopped":
        yield f"{counted(found.left, 'block')} left: repeat the run's command with --resume"


def _failures(failed: tuple[FailedBlock, ...], *, traceback: bool) -> Iterator[str]:
    """Failed blocks, together if they have one reason."""
    groups: dict[tuple[str, str], list[FailedBlock]] = defaultdict(list)
    for block in failed:
        groups[block.kind, block.message.replace(f"block {block.block}", "the block")].append(block)
    for (kind, message), blocks in sorted(groups.items(), key=lambda group: -len(group[1])):
        numbers = ", ".join(str(block.block) for block in blocks[:_SHOWN])
        more = f" and {len(blocks) - _SHOWN} more" if len(blocks) > _SHOWN else ""
        noun = "block" if len(blocks) == 1 else "blocks"
        yield f"failed ({kind}): {noun} {numbers}{more}: {message}"
        yield f"    after {counted(blocks[0].attempts, 'attempt')}, the last on {blocks[0].worker} at {blocks[0].time}"
        if traceback and blocks[0].traceback:
            yield from (f"    {line}" for line in blocks[0].traceback.rstrip().splitlines())
