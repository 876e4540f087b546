"""Arrays that tensorstore reads: N5, and Neuroglancer precomputed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.errors import SourceError
from volseg.storage.extras import require

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_REASON = 300
_SCHEMES = ("http", "https", "gs", "s3")


class TensorArray:
    """An array whose first voxel has index 0 along each axis; missing chunks are read as the fill value.

    Args:
        location: path or URL of the folder, for messages.
        spec: of the array, as tensorstore takes it.
    """

    def __init__(self, location: str, spec: dict[str, Any]) -> None:
        self._location, self._spec = location, spec
        self._array = self._open(strict=False)
        self._strict: Any = None

    def __call__(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        """Read an index of integers and slices."""
        return np.asarray(self._array[index].read().result())

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along the stored axes."""
        return tuple(self._array.shape)

    @property
    def fill(self) -> Any:
        """Value of the voxels of a missing chunk."""
        fill = self._array.fill_value
        return 0 if fill is None else np.asarray(fill).ravel()[0]

    def has(self, position: tuple[int, ...]) -> bool | None:
        """Whether the chunk of a voxel is there, inside a shard too; None if that cannot be told."""
        if self._strict is None:
            self._strict = self._open(strict=True)
        try:
            self._strict[position].read().result()
        except Exception as error:  # tensorstore raises ValueError for most
            return False if "NOT_FOUND" in str(error) or "is missing" in str(error) else None
        return True

    def _open(self, *, strict: bool) -> Any:
        tensorstore = require("tensorstore", "formats", self._location)
        spec = self._spec | {"fill_missing_data_reads": not strict, "recheck_cached_metadata": False}
        try:
            array = tensorstore.open(spec, open=True, read=True).result()
        except Exception as error:  # tensorstore raises errors of many kinds
            raise SourceError(f"{self._location} cannot be opened: {_reason(error)}") from error
        return array[tensorstore.d[:].translate_to[0]]


def kvstore(location: str) -> Any:
    """What tensorstore takes for a folder.

    Raises:
        SourceError: a URL that it does not read.
    """
    scheme, separator, _ = location.partition("://")
    if not separator:
        return {"driver": "file", "path": f"{location.rstrip('/')}/"}
    if scheme not in _SCHEMES or "?" in location:
        raise SourceError(
            f"{location} is not read as N5 or precomputed from such a URL; copy it to a disk, or serve it over http"
        )
    return f"{location.rstrip('/')}/"


def _reason(error: Exception) -> str:
    """The message of tensorstore without the places in its source, which follow in brackets."""
    text = str(error)
    with suppress(ValueError):
        text = text[: text.index(" [")]
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]} .."
