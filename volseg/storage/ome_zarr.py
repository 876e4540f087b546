"""OME-Zarr metadata: 0.4 and 0.5 are read, 0.5 is written."""

from __future__ import annotations

from posixpath import normpath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from yaozarrs import v05

from volseg.blocks import coarser_place
from volseg.storage.place import Place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from volseg.blocks import Zyx
    from volseg.storage.axes import AxisLayout


def multiscale_of(attributes: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the first multiscale of a group's attributes, OME-Zarr 0.5 or 0.4; None if there is none."""
    return next(iter(_multiscales(attributes)), None)


def multiscale_naming(attributes: Mapping[str, Any], path: str) -> tuple[Mapping[str, Any], str] | None:
    """Return the multiscale of a group's attributes that has a level at a path, and the path as it writes it.

    >>> multiscale_naming({"multiscales": [{"datasets": [{"path": "images/s0"}]}]}, "images/s0")[1]
    'images/s0'
    """
    for multiscale in _multiscales(attributes):
        for stated in (str(dataset["path"]) for dataset in multiscale["datasets"]):
            if normpath(stated) == normpath(path):
                return multiscale, stated
    return None


def _multiscales(attributes: Mapping[str, Any]) -> list[Any]:
    scales = _ome(attributes).get("multiscales")
    return scales if isinstance(scales, list) else []


def is_bioformats2raw(attributes: Mapping[str, Any]) -> bool:
    """Whether a group holds series 0, 1 .. as bioformats2raw lays them out."""
    return "bioformats2raw.layout" in _ome(attributes)


def channel_labels(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the channel names of a group's attributes, OME-Zarr 0.5 or 0.4; empty if one has no name.

    >>> channel_labels({"ome": {"omero": {"channels": [{"label": "cell"}, {"label": "membrane"}]}}})
    ('cell', 'membrane')
    """
    omero = _ome(attributes).get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    labels = [channel.get("label") for channel in channels or [] if isinstance(channel, dict)]
    return tuple(map(str, labels)) if all(labels) else ()


def _ome(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the OME-Zarr part of a group's attributes: under `ome` in 0.5, at the top in 0.4."""
    ome = attributes.get("ome", attributes)
    return ome if isinstance(ome, dict) else {}


def level_paths(multiscale: Mapping[str, Any]) -> list[str]:
    """Return the paths of the levels of a multiscale, finest first.

    Raises:
        ValueError: a path leaves the group, on a disk or in a URL.

    >>> level_paths({"datasets": [{"path": "0"}, {"path": "images/s1"}]})
    ['0', 'images/s1']
    """
    paths = [str(dataset["path"]) for dataset in multiscale["datasets"]]
    for path in paths:
        plain = path.replace("\\", "/")
        while (decoded := unquote(plain).replace("\\", "/")) != plain:  # as a URL may be decoded, even twice
            plain = decoded
        if plain.startswith("/") or normpath(plain).partition("/")[0] == ".." or not plain.isprintable():
            raise ValueError(f"the path of a level, {path!r}, leaves the group")
    return paths


def axis_names(multiscale: Mapping[str, Any]) -> list[str]:
    """Return the axis names of a multiscale, such as z, y, x."""
    return [axis["name"] if isinstance(axis, dict) else str(axis) for axis in multiscale.get("axes", [])]


def level_place(multiscale: Mapping[str, Any], path: str, layout: AxisLayout) -> Place:
    """Return the place of a level: the transformations of its dataset, then those of the multiscale.

    Args:
        multiscale: which names the level.
        path: of the level.
        layout: of its array.

    Raises:
        AttributeError, IndexError, KeyError, TypeError, ValueError: invalid metadata, or transformations other than
            scales and translations.
    """
    dataset = next(d for d in multiscale["datasets"] if str(d["path"]) == path)
    transformations = [
        transformation
        for owner in (dataset, multiscale)
        for transformation in owner.get("coordinateTransformations") or ()
        if transformation["type"] != "identity"
    ]
    if not any(transformation["type"] == "scale" for transformation in transformations):
        return Place(problem="its OME-Zarr metadata state no scale")
    scale, start = [1.0] * 3, [0.0] * 3
    for transformation in transformations:
        kind = transformation["type"]
        if kind not in ("scale", "translation"):
            raise ValueError(f"transformation {kind!r}, which is neither a scale nor a translation")
        values = [float(value) for value in layout.zyx(transformation[kind])]
        if kind == "scale":
            scale = [a * b for a, b in zip(scale, values, strict=True)]
            start = [a * b for a, b in zip(start, values, strict=True)]
        else:
            start = [a + b for a, b in zip(start, values, strict=True)]
    return Place.stated(scale, start, [_unit(axis) for axis in layout.zyx(multiscale.get("axes") or [{}] * 3)])


def _unit(axis: object) -> object:
    return axis.get("unit") if isinstance(axis, dict) else None


def image_attributes(
    name: str, place: Place, channels: Sequence[str] = (), scales: Sequence[Zyx] = ()
) -> dict[str, Any]:
    """Create the `ome` attributes (0.5) of an image with the levels `0`, `1`, .. along z, y, x.

    Args:
        name: name of the image.
        place: voxel size and translation; axes have the unit nanometre, or none if they are not in nanometres.
        channels: channel names, for a channel axis before z; empty for no such axis.
        scales: voxels of level 0 along z, y, x that a voxel of each coarser level is made of.
    """
    axes = [v05.ChannelAxis(name="c", type="channel")] if channels else []
    datasets = [
        v05.Dataset(path=str(number), coordinateTransformations=_transformations(place, scale, len(axes)))
        for number, scale in enumerate([(1, 1, 1), *scales])
    ]
    unit: Any = "nanometer" if place.is_nm else None
    image = v05.Image(
        multiscales=[
            v05.Multiscale(
                name=name,
                axes=[*axes, *(v05.SpaceAxis(name=axis, unit=unit) for axis in ("z", "y", "x"))],
                datasets=datasets,
            )
        ],
        omero=v05.Omero(channels=[_omero_channel(channel) for channel in channels]) if channels else None,
    )
    attributes: dict[str, Any] = image.model_dump(mode="json", exclude_none=True)
    return {"version": "0.5", **attributes}


def _transformations(place: Place, scale: Zyx, channel_axes: int) -> list[Any]:
    """Scale and translation of a level, the first voxel of which lies in the middle of those that it is made of."""
    size, start = coarser_place(place.scale, place.translation, scale)
    transformations: list[Any] = [v05.ScaleTransformation(scale=[1.0] * channel_axes + list(size))]
    if any(start):
        transformations.append(v05.TranslationTransformation(translation=[0.0] * channel_axes + list(start)))
    return transformations


def _omero_channel(name: str) -> v05.OmeroChannel:
    """Describe to viewers a channel of probabilities: black to white over 0..255."""
    return v05.OmeroChannel(
        label=name, color="FFFFFF", active=True, window=v05.OmeroWindow(start=0, min=0, end=255, max=255)
    )
