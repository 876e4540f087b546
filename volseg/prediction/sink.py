"""Sinks: where a block's probabilities are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from volseg.errors import TargetLostError
from volseg.storage import (
    ObjectPath,
    RunRecord,
    Written,
    joint_digest,
    lease_watch,
    read_metadata,
    read_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from volseg.blocks import Box
    from volseg.storage import Target, TargetPath


@dataclass(frozen=True)
class VolumeSink:
    """Writes into target volumes: probabilities, and their standard deviation into a second one if requested."""

    targets: tuple[Target, ...]

    def write(
        self, box: Box, volumes: Sequence[NDArray[np.uint8]], check: Callable[[], object] = lambda: None
    ) -> Written:
        """Write each volume's (classes, z, y, x); returns the joint digests and the bytes of all.

        `check` is called before shards get their names.
        """
        written = [
            target.write(box, voxels if target.channels else voxels[0], check)
            for target, voxels in zip(self.targets, volumes, strict=True)
        ]
        digests, sizes, file_digests = zip(*written, strict=True)
        return Written(joint_digest(digests), sum(sizes), joint_digest(file_digests))

    def clear(self, box: Box, check: Callable[[], object] = lambda: None) -> None:
        """Delete the shards of a box in each volume; `check` is called before."""
        for target in self.targets:
            target.clear(box, check)


@dataclass(frozen=True)
class FencedSink:
    """Writes only as long as the target belongs to the run: a block may outlive its run, and another one begin.

    Attributes:
        sink: writes.
        path: of the target.
        digest: of the run's record.
    """

    sink: VolumeSink
    path: TargetPath
    digest: str
    _accepted: list[bytes] = field(default_factory=list)

    def write(self, box: Box, volumes: Sequence[NDArray[np.uint8]]) -> Written:
        """As `VolumeSink.write`.

        Raises:
            TargetError: the target belongs to another run, or the voxels cannot be written.
        """
        return self.sink.write(box, volumes, self._check)

    def clear(self, box: Box) -> None:
        """As `VolumeSink.clear`.

        Raises:
            TargetError: as `write`.
        """
        self.sink.clear(box, self._check)

    def _check(self) -> None:
        """Parse the record only if the bytes of the target's metadata changed; on an object store the lease tells."""
        if isinstance(self.path, ObjectPath):
            lease_watch(self.path, self.digest).confirm()
            return
        try:
            metadata = read_metadata(self.path / "zarr.json")
        except OSError:
            metadata = b""
        if not metadata or metadata not in self._accepted:
            read_own_record(self.path, self.digest)
            self._accepted[:] = [metadata]


class NullSink:
    """Discards the voxels."""

    def write(self, box: Box, volumes: Sequence[NDArray[Any]]) -> Written:
        """Do nothing."""
        return Written("", 0, "")

    def clear(self, box: Box) -> None:
        """Do nothing."""


def read_own_record(path: TargetPath, digest: str) -> RunRecord:
    """A target's run record, if it is the one with this digest.

    Raises:
        TargetLostError: it is another.
        TargetError: there is none.
    """
    record = read_record(path)
    if record.digest != digest:
        raise TargetLostError(
            f"{path} holds another run than the one that sent this block; use a path that is the same everywhere"
        )
    return record
