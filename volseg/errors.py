"""Every error that volseg raises on purpose.

    VolsegError                 one clear line: names the value and the way out
    |- ConfigError              an option, a run file or a name that does not exist (ValueError)
    |- GridError                blocks, halos, shards or a region that do not fit together (ValueError)
    |- SourceError              a volume that cannot be read (OSError)
    |- TargetError              a volume that cannot be written, or must not be (OSError)
    |- ModelError               a model file that is not one, or does not suit the volume (ValueError)
    |- ResumeError              a run that is not the one its target records (ValueError)
    |- MemoryPlanError          a run that would not fit the worker (MemoryError)
    |- ClusterError             a cluster that cannot be joined or does not suit (ConnectionError)
    |- TrainingError            a training that cannot start or go on (RuntimeError)
    `- BlockError               one block that cannot be done: sending it again would not help (RuntimeError)

The command line prints the message alone and exits with `exit_code`.
"""

from __future__ import annotations


class VolsegError(Exception):
    """The root: its message is one line for the user, whatever was quoted in it."""

    exit_code = 1

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class ConfigError(VolsegError, ValueError):
    """An option, a run file's key or a name that does not exist."""

    exit_code = 2


class GridError(VolsegError, ValueError):
    """Blocks, halos, tiles, shards or a region that do not fit together."""

    exit_code = 2


class SourceError(VolsegError, OSError):
    """A volume that cannot be read."""


class TargetError(VolsegError, OSError):
    """A volume that cannot be written, or must not be."""


class ModelError(VolsegError, ValueError):
    """A model file that is not one, or that does not suit the volume."""


class ResumeError(VolsegError, ValueError):
    """A run that is not the one its target records."""


class MemoryPlanError(VolsegError, MemoryError):
    """A run whose predicted peak does not fit the worker."""


class ClusterError(VolsegError, ConnectionError):
    """A cluster that cannot be joined, or that does not suit the run."""


class TrainingError(VolsegError, RuntimeError):
    """A training that cannot start, or cannot go on."""


class BlockError(VolsegError, RuntimeError):
    """One block that cannot be done, whichever worker tries."""


class NotFiniteError(BlockError):
    """A network made NaN or infinity of a block."""
