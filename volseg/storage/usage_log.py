"""What each start of a run took, beside its journal: one small file per start, written anew as the run goes on.

0/.volseg/usage-20261129-013000-1a2b3c4d.json
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.errors import TargetError
from volseg.text import parse_object

if TYPE_CHECKING:
    from collections.abc import Iterable

    from volseg.storage.object_path import TargetPath

_PREFIX = "usage-"


@dataclass(frozen=True, slots=True)
class KindUsage:
    """What workers of a kind did. Seconds are of whole workers: two blocks at once on a worker count half each.

    Attributes:
        held_seconds: from their joining on, whether they compute or not.
        block_seconds: in blocks that are done.
        wasted_seconds: in attempts that failed, and in blocks that another worker did first; what a worker that died
            had begun is not known.
        blocks: done, those of coarser levels included.
        failures: attempts that failed.
        bytes: of the blocks, as stored.
    """

    held_seconds: float = 0.0
    block_seconds: float = 0.0
    wasted_seconds: float = 0.0
    blocks: int = 0
    failures: int = 0
    bytes: int = 0

    def __add__(self, other: KindUsage) -> KindUsage:
        """The sum."""
        return KindUsage(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class StartUsage:
    """What one start of a run took.

    Attributes:
        started: ISO 8601, UTC.
        seconds: until now, or until its end.
        kinds: of the workers; the empty name is of those that did no block.
        run: digest of the run's record.
    """

    started: str
    seconds: float
    kinds: dict[str, KindUsage]
    run: str = ""


class UsageLog:
    """The file of one start.

    Args:
        folder: of the journal.
        name: that no other start has, in letters and digits.
    """

    def __init__(self, folder: TargetPath, name: str) -> None:
        self._path = folder / f"{_PREFIX}{name}.json"

    def write(self, usage: StartUsage) -> None:
        """Replace what was written; bookkeeping never ends a run, so that an error is left for the journal to meet."""
        content = json.dumps(asdict(usage)).encode()
        with suppress(OSError, TargetError):
            if isinstance(self._path, Path):
                partial = self._path.with_suffix(".partial")
                partial.write_bytes(content)
                partial.replace(self._path)
            else:
                self._path.write_bytes(content)


def read_usage(folder: TargetPath, run: str = "") -> list[StartUsage]:
    """What the starts of a run took, in their order; files that cannot be read, or are another run's, are left out."""
    found = (_parse(file.read_bytes()) for file in folder.glob(f"{_PREFIX}*.json"))
    return sorted((usage for usage in found if usage and usage.run == run), key=lambda usage: usage.started)


def total_usage(starts: Iterable[StartUsage]) -> dict[str, KindUsage]:
    """The sum of all starts for each kind of worker."""
    total: dict[str, KindUsage] = {}
    for start in starts:
        for kind, usage in start.kinds.items():
            total[kind] = total.get(kind, KindUsage()) + usage
    return total


def _parse(content: bytes) -> StartUsage | None:
    try:
        values: dict[str, Any] = dict(parse_object(content, "a usage"))
        kinds = {str(kind): _kind_usage(usage) for kind, usage in values["kinds"].items()}
        return StartUsage(str(values["started"]), _number(values["seconds"]), kinds, str(values["run"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _kind_usage(values: dict[str, Any]) -> KindUsage:
    """As it was written.

    Raises:
        TypeError: fields are missing, are others or of other types.
    """
    return KindUsage(**{name: _number(value) for name, value in values.items()})


def _number(value: Any) -> Any:
    if type(value) not in (int, float) or not 0 <= value < float("inf"):
        raise TypeError
    return value
