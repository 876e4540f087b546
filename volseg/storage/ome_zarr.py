"""OME-Zarr metadata: 0.4 and 0.5 are read, 0.5 is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from yaozarrs import v05

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from volseg.blocks import ZyxFloat

_NANOMETRES = {
    "angstrom": 0.1,
    "nanometer": 1.0,
    "nm": 1.0,
    "micrometer": 1e3,
    "um": 1e3,
    "µm": 1e3,
    "millimeter": 1e6,
    "meter": 1e9,
}


def multiscale_of(attributes: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the first multiscale of a group's attributes, OME-Zarr 0.5 or 0.4; None if there is none."""
    scales = _ome(attributes).get("multiscales")
    return scales[0] if isinstance(scales, list) and scales else None


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
    """Return the paths of the levels of a multiscale, finest first."""
    return [str(dataset["path"]) for dataset in multiscale["datasets"]]


def axis_names(multiscale: Mapping[str, Any]) -> list[str]:
    """Return the axis names of a multiscale, such as z, y, x."""
    return [axis["name"] if isinstance(axis, dict) else str(axis) for axis in multiscale.get("axes", [])]


def level_voxel_nm(multiscale: Mapping[str, Any], path: str) -> ZyxFloat | None:
    """Return the voxel size of a level in nanometres, (z, y, x); None if unit or scale is not stated."""
    dataset = next((d for d in multiscale["datasets"] if str(d["path"]) == path), None)
    axes = multiscale.get("axes", [])[-3:]
    if dataset is None or len(axes) != 3 or not all(isinstance(axis, dict) for axis in axes):
        return None
    factors = [_NANOMETRES.get(str(axis.get("unit", "")).lower()) for axis in axes]
    scales = [
        transform["scale"][-3:]
        for owner in (dataset, multiscale)
        for transform in owner.get("coordinateTransformations", [])
        if transform.get("type") == "scale"
    ]
    if not scales or any(factor is None for factor in factors):
        return None
    z, y, x = (float(factor or 0) for factor in factors)
    for scale in scales:
        z, y, x = z * float(scale[0]), y * float(scale[1]), x * float(scale[2])
    return z, y, x


def array_voxel_nm(attributes: Mapping[str, Any]) -> ZyxFloat | None:
    """Return the voxel size of an array's own attributes, as daisy and funlib write it, in nanometres (z, y, x)."""
    for key in ("voxel_size", "resolution"):
        size = attributes.get(key)
        if isinstance(size, list) and len(size) == 3 and all(isinstance(v, int | float) and v > 0 for v in size):
            return float(size[0]), float(size[1]), float(size[2])
    return None


def image_attributes(name: str, voxel_nm: ZyxFloat, channels: Sequence[str] = ()) -> dict[str, Any]:
    """Create the `ome` attributes (0.5) of an image with one level, `0`, along z, y, x in nanometres.

    Args:
        name: name of the image.
        voxel_nm: voxel size (z, y, x).
        channels: channel names, for a channel axis before z; empty for no such axis.
    """
    axes = [v05.ChannelAxis(name="c", type="channel")] if channels else []
    image = v05.Image(
        multiscales=[
            v05.Multiscale(
                name=name,
                axes=[*axes, *(v05.SpaceAxis(name=axis, unit="nanometer") for axis in ("z", "y", "x"))],
                datasets=[
                    v05.Dataset(
                        path="0",
                        coordinateTransformations=[v05.ScaleTransformation(scale=[1.0] * len(axes) + list(voxel_nm))],
                    )
                ],
            )
        ],
        omero=v05.Omero(channels=[_omero_channel(channel) for channel in channels]) if channels else None,
    )
    attributes: dict[str, Any] = image.model_dump(mode="json", exclude_none=True)
    return {"version": "0.5", **attributes}


def _omero_channel(name: str) -> v05.OmeroChannel:
    """Describe to viewers a channel of probabilities: black to white over 0..255."""
    return v05.OmeroChannel(
        label=name, color="FFFFFF", active=True, window=v05.OmeroWindow(start=0, min=0, end=255, max=255)
    )
