"""Every error that volseg raises on purpose, with the exit code of the command line beside it; and `redact`.

    VolsegError                 1   one line: names the value and the way out
    |- ConfigError              2   a value of an option or of a run file that cannot be used (ValueError)
    |- GridError                2   blocks, halos, shards or a region that do not fit together (ValueError)
    |- SourceError              1   a volume that cannot be read (OSError)
    |  `- SourceLostError       1   a volume that is gone, or has changed, since it was opened
    |- TargetError              1   an output that cannot be written, or must not be replaced (OSError)
    |  `- TargetLostError       1   an output that is gone, or another run's, since it was opened
    |- ModelError               1   a model file that is invalid, or does not fit the volume (ValueError)
    |- ResumeError              1   a run that differs from the one recorded in its target (ValueError)
    |- MemoryPlanError          1   a run that does not fit the memory of a worker (MemoryError)
    |- ClusterError             1   a cluster that cannot be joined, or does not fit the run (ConnectionError)
    |- WorkerError              1   a worker that computes something else than it should (RuntimeError)
    |- TrainingError            1   a training that cannot start or continue (RuntimeError)
    |- RunAbortedError          1   a run that ended because of its failures (RuntimeError)
    `- BlockError               1   a block that fails on every worker (RuntimeError)
       `- NotFiniteError        1   a block for which the network returns NaN or infinity

The command line prints the message and exits with `exit_code`.
"""

from __future__ import annotations

import re
from typing import Any

REDACTED = "***"
"""Stands in the place of a credential."""
_URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_USER = re.compile(r"(?<=://)[^/?#@]+@")
_VALUE = re.compile(r"(?<==)[^&#]+")


def redact(text: str) -> str:
    """Replace user, password and the values of the query in every URL of a text.

    >>> redact("no chunk at https://me:pw@host/raw.zarr?X-Amz-Signature=ab12&part=3 is missing")
    'no chunk at https://***@host/raw.zarr?X-Amz-Signature=***&part=*** is missing'
    >>> redact("s3://bucket/raw.zarr, me@host")
    's3://bucket/raw.zarr, me@host'
    """
    return _URL.sub(_redact_url, text)


def _redact_url(match: re.Match[str]) -> str:
    address, mark, query = match[0].partition("?")
    return _USER.sub(f"{REDACTED}@", address) + mark + _VALUE.sub(REDACTED, query)


def redacted(value: Any) -> Any:
    """The same JSON value with every text in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redacted(key): redacted(item) for key, item in value.items()}
    return [redacted(item) for item in value] if isinstance(value, list | tuple) else value


class VolsegError(Exception):
    """The base class; its message is one line without credentials or control characters, whatever it quotes."""

    exit_code = 1

    def __str__(self) -> str:
        line = redact(" ".join(super().__str__().split()))
        return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)


class ConfigError(VolsegError, ValueError):
    """A value of an option or of a run file that cannot be used: wrong, contradictory, or the name of nothing."""

    exit_code = 2


class GridError(VolsegError, ValueError):
    """Blocks, halos, tiles, shards or a region that do not fit together."""

    exit_code = 2


class SourceError(VolsegError, OSError):
    """A volume that cannot be read."""


class SourceLostError(SourceError):
    """A volume that is gone, or has changed, since it was opened."""


class TargetError(VolsegError, OSError):
    """An output that cannot be written, or must not be replaced."""


class TargetLostError(TargetError):
    """An output that is gone, or belongs to another run, since it was opened."""


class ModelError(VolsegError, ValueError):
    """A model file that is invalid, or does not fit the volume."""


class ResumeError(VolsegError, ValueError):
    """A run that differs from the one recorded in its target."""


class MemoryPlanError(VolsegError, MemoryError):
    """A run whose predicted peak exceeds the memory of a worker."""


class ClusterError(VolsegError, ConnectionError):
    """A cluster that cannot be joined, or does not fit the run."""


class WorkerError(VolsegError, RuntimeError):
    """A worker that computes something else than it should: a faulty kernel, or memory that changed."""


class TrainingError(VolsegError, RuntimeError):
    """A training that cannot start or continue."""


class RunAbortedError(VolsegError, RuntimeError):
    """A run that ended because of its failures; the blocks that are done stay."""


class BlockError(VolsegError, RuntimeError):
    """A block that fails on every worker."""


class NotFiniteError(BlockError):
    """A block for which the network returns NaN or infinity."""
