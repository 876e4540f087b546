"""Where a block's probabilities are written."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from volseg.errors import TargetError
from volseg.storage import read_record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from volseg.blocks import Box
    from volseg.storage import RunRecord, Target


@dataclass(frozen=True)
class VolumeSink:
    """The sink of a run: its probabilities, and their spread in a second volume where that is asked for."""

    targets: tuple[Target, ...]

    def write(self, box: Box, volumes: Sequence[NDArray[np.uint8]]) -> str:
        """Write each volume's (classes, z, y, x); returns one digest of all."""
        digests = [
            target.write(box, voxels if target.channels else voxels[0])
            for target, voxels in zip(self.targets, volumes, strict=True)
        ]
        return digests[0] if len(digests) == 1 else blake2b("".join(digests).encode(), digest_size=16).hexdigest()

    def clear(self, box: Box) -> None:
        """Delete the shards of a box in each volume."""
        for target in self.targets:
            target.clear(box)


@dataclass(frozen=True)
class FencedSink:
    """Volumes for as long as they are the run's: a block may outlive a run that was stopped and begun anew.

    Attributes:
        volumes: to write to.
        path: of the target.
        digest: of the run's record.
    """

    volumes: VolumeSink
    path: Path
    digest: str

    def write(self, box: Box, volumes: Sequence[NDArray[np.uint8]]) -> str:
        """As `VolumeSink.write`.

        Raises:
            TargetError: another run was begun here; or the store does not take the voxels.
        """
        _record_of(self.path, self.digest)
        return self.volumes.write(box, volumes)

    def clear(self, box: Box) -> None:
        """As `VolumeSink.clear`.

        Raises:
            TargetError: as `write`.
        """
        _record_of(self.path, self.digest)
        self.volumes.clear(box)


def _record_of(path: Path, digest: str) -> RunRecord:
    """A target's run record, if it is the one that a block was sent for."""
    record = read_record(path)
    if record.digest != digest:
        raise TargetError(
            f"{path} holds another run than the one that sent this block; use a path that is the same everywhere"
        )
    return record
