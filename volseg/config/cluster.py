"""Jobs of a batch system that hold workers: a TOML file, or options of the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import ceil
from os import PathLike, fspath
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field, model_validator

from volseg.config.base import FrozenModel
from volseg.config.toml import read_toml, validate
from volseg.errors import ConfigError
from volseg.text import did_you_mean

BatchSystem: TypeAlias = Literal["slurm", "lsf", "pbs", "sge"]
SYSTEMS: tuple[str, ...] = get_args(BatchSystem)

_UNITS = {"d": 86400, "h": 3600, "m": 60, "min": 60, "s": 1}
_SPAN = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])(?:i?B)?", re.IGNORECASE)
_SYNONYMS = {"partition": "queue", "project": "account"}
_MIN_SECONDS = 60


def parse_walltime(text: Any) -> int:
    """Seconds of a time such as 4h, 1d12h, 90min, 04:00:00 or 1-12:00:00.

    Raises:
        ValueError: another form, such as 4:00, which batch systems read in two ways; or less than a minute.

    >>> [parse_walltime(text) for text in ("4h", "1d12h", "90 min", "04:00:00", "1-12:00:00")]
    [14400, 129600, 5400, 14400, 129600]
    """
    words = re.sub(r"\s", "", str(text))
    if match := _SPAN.fullmatch(words):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    else:
        parts = re.findall(r"(\d+)(d|h|min|m|s)", words)
        if not parts or "".join(map("".join, parts)) != words:
            raise ValueError(f"{text!r} is not a time; write 4h, 90min, 1d12h or 04:00:00")
        total = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if total < _MIN_SECONDS:
        raise ValueError(f"{text!r} is less than a minute; give at least 1min")
    return total


def parse_memory(text: Any) -> int:
    """Bytes of a size such as 32GB, 32G or 32GiB: powers of 1024, as batch systems count.

    Raises:
        ValueError: another form.

    >>> parse_memory("32GB") == parse_memory("32G") == 32 << 30
    True
    """
    match = _SIZE.fullmatch(str(text).strip())
    if match is None or float(match[1]) == 0:
        raise ValueError(f"{text!r} is not a size of memory; write 32GB or 900MB")
    unit: int = 1024 ** (1 + "KMGT".index(match[2].upper()))
    return ceil(float(match[1]) * unit)


def _parse_bounds(value: Any) -> Any:
    """The fewest and most jobs.

    Raises:
        ValueError: not two whole numbers.
    """
    if isinstance(value, list | tuple) and len(value) == 2 and all(type(number) is int for number in value):
        return value
    raise ValueError(f"{value!r} is not two whole numbers; write [MIN, MAX], such as [1, 16]")


def _parse_lines(value: Any) -> Any:
    """Lines of a job script.

    Raises:
        ValueError: one text, which is no list.
    """
    if isinstance(value, str):
        raise ValueError(f"{value!r} is not a list of lines; write [{json.dumps(value)}]")
    return value


_Name: TypeAlias = Annotated[str, Field(min_length=1)]
_Lines: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_parse_lines)]


class BatchConfig(FrozenModel):
    """Jobs of a batch system; keys are named as in dask-jobqueue, and resources are those of a job."""

    system: BatchSystem
    queue: _Name | None = None
    """Queue or partition; None: that of the site."""
    account: _Name | None = None
    """Account or project that pays."""
    walltime: Annotated[int, BeforeValidator(parse_walltime)] | None = None
    """Limit of a job, such as 4h or 04:00:00, in seconds once read; None: that of the queue."""
    cores: int = Field(default=4, ge=1, le=4096)
    memory: Annotated[int, BeforeValidator(parse_memory)]
    """Such as 32GB, in bytes once read."""
    gpus: int = Field(default=0, ge=0, le=64)
    """A job has one worker for each; 0: one worker, on CPUs."""
    workers: int = Field(default=1, ge=1, le=4096)
    """Number of jobs."""
    adapt: Annotated[tuple[int, int], BeforeValidator(_parse_bounds)] | None = None
    """Fewest and most jobs; their number follows the work."""
    job_name: _Name = "volseg"
    job_script_prologue: _Lines = ()
    """Lines of the job script before the worker starts, such as the activation of an environment."""
    job_extra_directives: _Lines = ()
    """Further options of the batch system, without its prefix."""
    job_directives_skip: _Lines = ()
    """Lines of the header that contain one of these are left out."""
    resource_spec: str | None = None
    """PBS and SGE: what `-l` asks for, in place of what cores, memory and gpus make."""
    log_directory: _Name = "volseg-logs"
    """Folder of the workers' logs, on a file system that nodes and driver share."""
    interface: _Name | None = None
    """Network interface of driver and workers, such as ib0."""
    local_directory: _Name | None = None
    """Folder for temporary files on a node."""
    python: _Name | None = None
    """Interpreter on the nodes; None: that of the driver."""
    notice: int = Field(default=30, ge=0, le=86400)
    """Seconds between the signal that asks a job to end and its end, as the site grants."""

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, values: Any) -> Any:
        """Take the synonyms of other batch systems; refuse a job without system or memory in words of the user."""
        values = dict(values)
        for name, key in _SYNONYMS.items():
            if name in values:
                values.setdefault(key, values.pop(name))
                values.pop(name, None)
        has_known_keys = not {*values} - {*cls.model_fields}
        if has_known_keys and values.get("system") is None:
            raise ValueError(f'the batch system is not stated; give system = "slurm" (one of {", ".join(SYSTEMS)})')
        if has_known_keys and values.get("memory") is None:
            raise ValueError("the memory of a job is not stated; give --memory 32GB, or memory in the file")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> BatchConfig:
        if self.adapt is not None and not 1 <= self.adapt[0] <= self.adapt[1]:
            raise ValueError(f"adapt {self.adapt[0]},{self.adapt[1]} is not MIN,MAX with 1 <= MIN <= MAX")
        if self.adapt is not None and "workers" in self.model_fields_set:
            raise ValueError(
                f"workers {self.workers} contradicts adapt {self.adapt[0]},{self.adapt[1]}; give one of them"
            )
        if self.resource_spec is not None and self.system not in ("pbs", "sge"):
            raise ValueError("resource_spec is for pbs and sge; use job_extra_directives")
        return self

    def __str__(self) -> str:
        return self.system


Cluster: TypeAlias = Any
"""A name, a scheduler's address, a `BatchConfig`, or a Dask `Client` or cluster object."""


def read_cluster(value: Any, flags: Mapping[str, Any] | None = None) -> Cluster:
    """What `--cluster` names: of a batch system or a file the `BatchConfig`, all else as it is.

    Args:
        value: `slurm`, `lsf`, `pbs`, `sge`, FILE.toml, a dict of the keys of such a file, or another cluster.
        flags: keys of a `BatchConfig` that take the place of those of a file.

    Raises:
        ConfigError: a file that cannot be read, unknown keys, wrong values, or flags of another cluster.
    """
    given = {key: item for key, item in (flags or {}).items() if item is not None}
    text = fspath(value) if isinstance(value, PathLike) else value
    if isinstance(text, str) and text.endswith(".toml"):
        assignments = [f"{key}={json.dumps(item)}" for key, item in given.items()]
        return read_toml(text, BatchConfig, assignments, "cluster file")
    if isinstance(text, str) and text in SYSTEMS:
        return validate(BatchConfig, {"system": text, **given}, f"--cluster {text}")
    if isinstance(text, Mapping):
        return validate(BatchConfig, {**text, **given}, "cluster")
    if given:
        key, item = next(iter(given.items()))
        shown = ",".join(map(str, item)) if isinstance(item, tuple | list) else item
        meant = did_you_mean(str(text), SYSTEMS)
        raise ConfigError(f"--{key} {shown} needs --cluster {', '.join(SYSTEMS)} or FILE.toml, not {text}{meant}")
    return text


ClusterField: TypeAlias = Annotated[Cluster, BeforeValidator(read_cluster)]
"""A field of options that takes any cluster."""
