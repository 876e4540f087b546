"""Volumes that are read: any Zarr 2 or 3 array, or a level of an OME-Zarr, on disk or behind a URL."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore.store
import zarr
from zarr.storage import LocalStore, ObjectStore

from volseg.blocks import Box, Zyx, ZyxFloat, mirror_span
from volseg.errors import SourceError
from volseg.ops import reflect_gather
from volseg.storage import ome_zarr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

GREY = ("uint8", "uint16", "int16", "float32")
LABELS = ("uint8", "uint16", "uint32", "uint64", "int16", "int32", "int64", "bool")
_WAY_OUT = "name a Zarr array or an OME-Zarr group, or make one with: volseg convert"


@dataclass(frozen=True)
class Volume:
    """A volume to read from, axes (z, y, x).

    Attributes:
        location: where it is: an absolute path or a URL, down to the array.
        voxel_nm: its voxel size in nanometres; None where nothing states it.
        levels_nm: voxel sizes of all levels of the OME-Zarr that it is a level of, finest first; empty without one.
        channel: which of several along a channel axis in front; None where there is one volume alone.
    """

    location: str
    voxel_nm: ZyxFloat | None
    _array: zarr.Array[Any]
    levels_nm: tuple[ZyxFloat | None, ...] = ()
    channel: int | None = None

    @property
    def shape(self) -> Zyx:
        """Voxels along z, y, x."""
        z, y, x = self._array.shape[-3:]
        return z, y, x

    @property
    def dtype(self) -> str:
        """The type of a voxel, such as `uint8`."""
        return str(self._array.dtype.name)

    @property
    def chunk(self) -> Zyx:
        """What is decoded at once: the inner chunk of a sharded array."""
        z, y, x = self._array.chunks[-3:]
        return z, y, x

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box, mirrored where it leaves the volume, in the source's own type.

        Raises:
            SourceError: the store could not give the voxels.
        """
        spans = [mirror_span(a, b, n) for a, b, n in zip(box.start, box.stop, self.shape, strict=True)]
        inner = tuple(slice(low, high) for low, high in spans)
        leading = tuple(0 if n == 1 else (self.channel or 0) for n in self._array.shape[:-3])
        try:
            held: Any = self._array[leading + inner]
        except Exception as error:  # each store and codec raises errors of its own
            raise SourceError(f"cannot read {box} of {self.location}: {type(error).__name__}: {error}") from error
        return reflect_gather(held, [low for low, _ in spans], box.start, box.stop, self.shape)

    def __reduce__(self) -> tuple[Any, tuple[str, tuple[str], None, int | None]]:
        return open_volume, (self.location, (self.dtype,), None, self.channel)


def open_volume(
    location: str, dtypes: tuple[str, ...] = GREY, level: int | None = None, channel: str | int | None = None
) -> Volume:
    """Open a volume for reading.

    Args:
        location: a path or a URL (http, https, s3, gs, az, file) of a Zarr 2 or 3 array, or of an OME-Zarr group,
            whose finest level is taken. Leading axes of length 1 (time, channel) are skipped.
        dtypes: the types that suit; those of grey values by default.
        level: which level of an OME-Zarr, counted from the finest, 0.
        channel: which of several along a channel axis in front, by its name in the OME-Zarr metadata or by its number.

    Raises:
        SourceError: nothing there, not a Zarr, not a volume with axes (z, y, x), or no such level or channel.
    """
    location = location.removeprefix("file://")
    node = _open_node(location)
    if isinstance(node, zarr.Array):
        if level is not None:
            raise SourceError(f"{location} is one array, so it has no level {level}; name the OME-Zarr group above it")
        above, name = _attributes_above(location), location.rstrip("/").rpartition("/")[2]
        volume = _checked(location, node, _voxel_nm_of_array(node, above, name), dtypes)
        return replace(volume, channel=_place_of(channel, volume.location, node.shape, channel_labels(above)))
    multiscale = ome_zarr.multiscale_of(dict(node.attrs))
    if multiscale is None:
        inside = sorted(node.array_keys()) if node.store.supports_listing else []
        raise SourceError(
            f"{location} is a Zarr group without OME-Zarr levels; name one of its arrays"
            + (f": {', '.join(inside[:8])}" if inside else "")
        )
    try:
        paths, names = ome_zarr.level_paths(multiscale), ome_zarr.axis_names(multiscale)
        levels_nm = tuple(ome_zarr.level_voxel_nm(multiscale, path) for path in paths)
        path, voxel_nm = (paths[level or 0], levels_nm[level or 0]) if (level or 0) < len(paths) else ("", None)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SourceError(
            f"{location} has OME-Zarr metadata that make no sense ({error!r}); name one of its arrays"
        ) from None
    if names and names[-3:] != ["z", "y", "x"]:
        raise SourceError(f"{location} has axes {', '.join(names)}; volseg reads volumes whose last axes are z, y, x")
    if not path:
        raise SourceError(f"{location} has no level {level}; it has levels 0 to {len(paths) - 1}")
    array = _open_node(f"{location.rstrip('/')}/{path}")
    if not isinstance(array, zarr.Array):
        raise SourceError(f"{location}/{path} is not an array, though the group's metadata names it as a level")
    volume = _checked(f"{location.rstrip('/')}/{path}", array, voxel_nm, dtypes)
    place = _place_of(channel, location, array.shape, channel_labels(dict(node.attrs)))
    return replace(volume, levels_nm=levels_nm, channel=place)


def channel_names(location: str) -> tuple[str, ...]:
    """What the OME-Zarr metadata at a location call its channels; nothing where they name none.

    Raises:
        SourceError: nothing there, or not a Zarr.
    """
    location = location.removeprefix("file://")
    node = _open_node(location)
    return channel_labels(_attributes_above(location) if isinstance(node, zarr.Array) else dict(node.attrs))


def channel_labels(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the channels in a group's attributes, OME-Zarr 0.5 or 0.4; none where one has no name.

    >>> channel_labels({"ome": {"omero": {"channels": [{"label": "cell"}, {"label": "membrane"}]}}})
    ('cell', 'membrane')
    """
    ome_attributes = attributes.get("ome", attributes)
    omero = ome_attributes.get("omero") if isinstance(ome_attributes, dict) else None
    channels = omero.get("channels") if isinstance(omero, dict) else None
    labels = [channel.get("label") for channel in channels or [] if isinstance(channel, dict)]
    return tuple(map(str, labels)) if all(labels) else ()


def _place_of(channel: str | int | None, location: str, shape: tuple[int, ...], labels: tuple[str, ...]) -> int | None:
    """Where along its channel axis a volume lies; None where there is no choice."""
    count = next((n for n in shape[:-3] if n != 1), 1)
    names = labels if len(labels) == count else tuple(map(str, range(count)))
    if channel is None and count == 1:
        return None
    if channel is None:
        raise SourceError(
            f"{location} has shape {shape}, which is not one volume of axes (z, y, x); choose one of its channels "
            f"({', '.join(names)}) where there is a --channel, or store it as a volume by itself"
        )
    asked = str(channel)
    place = names.index(asked) if asked in names else int(asked) if asked.isdecimal() else count
    if place >= count:
        raise SourceError(f"{location} has no channel {asked}; choose from {', '.join(names)}")
    return place if count != 1 else None


def _checked(location: str, array: zarr.Array[Any], voxel_nm: ZyxFloat | None, dtypes: tuple[str, ...]) -> Volume:
    if len(array.shape) < 3 or sum(n != 1 for n in array.shape[:-3]) > 1:
        raise SourceError(
            f"{location} has shape {array.shape}, which is not one volume of axes (z, y, x); "
            "stack sections or pick a channel first"
        )
    if 0 in array.shape:
        raise SourceError(f"{location} has shape {array.shape}: it holds no voxel")
    if array.dtype.name not in dtypes:
        raise SourceError(f"{location} holds {array.dtype.name}; what suits here is {', '.join(dtypes)}")
    return Volume(location if "://" in location else str(Path(location).resolve()), voxel_nm, array)


def _attributes_above(location: str) -> Mapping[str, Any]:
    """The attributes of the group that an array may be a level of; empty where there is none."""
    parent = location.rstrip("/").rpartition("/")[0]
    try:
        return dict(_open_node(parent).attrs) if parent else {}
    except SourceError:
        return {}


def _voxel_nm_of_array(array: zarr.Array[Any], above: Mapping[str, Any], name: str) -> ZyxFloat | None:
    stated = ome_zarr.plain_voxel_nm(dict(array.attrs))
    if stated is not None:
        return stated
    try:
        multiscale = ome_zarr.multiscale_of(above)
        return None if multiscale is None else ome_zarr.level_voxel_nm(multiscale, name)
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _open_node(location: str) -> zarr.Array[Any] | zarr.Group:
    store = _store(location)
    # Behind a URL zarr's own pipeline fetches chunks side by side without holding Python up; zarrs would.
    pipeline = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"} if isinstance(store, LocalStore) else {}
    with warnings.catch_warnings(), zarr.config.set(pipeline):
        # zarrs reads halo boxes faster; for a codec it does not know it warns and uses zarr's own pipeline.
        warnings.filterwarnings("ignore", message="Array is unsupported by ZarrsCodecPipeline")
        try:
            return zarr.open(store=store, mode="r")
        except FileNotFoundError:
            raise SourceError(f"{location} is not a Zarr; {_WAY_OUT}") from None
        except Exception as error:  # each store and codec raises errors of its own
            raise SourceError(f"cannot open {location}: {type(error).__name__}: {error}") from error


def _store(location: str) -> LocalStore | ObjectStore[Any]:
    scheme, separator, _ = location.partition("://")
    if separator:
        try:
            options: Any = {"client_options": {"allow_http": True}} if scheme == "http" else {}
            return ObjectStore(obstore.store.from_url(location.rstrip("/"), **options), read_only=True)
        except Exception as error:  # obstore's own errors have no public root
            reason = str(error).partition("Debug source:")[0]
            raise SourceError(f"cannot open {location}: {reason}; check the URL") from error
    local = Path(location)
    if not local.exists():
        raise SourceError(f"source {local} does not exist; check the path, or the mount")
    if not local.is_dir():
        raise SourceError(f"{local} is a file, not a Zarr; {_WAY_OUT}")
    return LocalStore(local, read_only=True)
