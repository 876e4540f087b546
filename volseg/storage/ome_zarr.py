"""OME-Zarr metadata: voxel sizes read from 0.4 and 0.5, and 0.5 written."""

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
    """The first multiscale of a group's attributes, OME-Zarr 0.5 or 0.4; None where there is none."""
    ome = attributes.get("ome", attributes)
    scales = ome.get("multiscales") if isinstance(ome, dict) else None
    return scales[0] if isinstance(scales, list) and scales else None


def level_paths(multiscale: Mapping[str, Any]) -> list[str]:
    """The paths of a multiscale's levels, finest first."""
    return [str(dataset["path"]) for dataset in multiscale["datasets"]]


def axis_names(multiscale: Mapping[str, Any]) -> list[str]:
    """The names of a multiscale's axes, such as z, y, x."""
    return [axis["name"] if isinstance(axis, dict) else str(axis) for axis in multiscale.get("axes", [])]


def level_voxel_nm(multiscale: Mapping[str, Any], path: str) -> ZyxFloat | None:
    """The voxel size of a level in nanometres, (z, y, x); None where no unit or no scale is stated."""
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


def plain_voxel_nm(attributes: Mapping[str, Any]) -> ZyxFloat | None:
    """The voxel size that daisy and funlib write beside a plain array, in nanometres (z, y, x)."""
    for key in ("voxel_size", "resolution"):
        size = attributes.get(key)
        if isinstance(size, list) and len(size) == 3 and all(isinstance(v, int | float) and v > 0 for v in size):
            return float(size[0]), float(size[1]), float(size[2])
    return None


def image_attributes(name: str, voxel_nm: ZyxFloat, channels: Sequence[str] = ()) -> dict[str, Any]:
    """The `ome` attributes (0.5) of an image with one level, `0`, along z, y, x in nanometres.

    Args:
        name: the image's.
        voxel_nm: voxel size (z, y, x).
        channels: names of what lies along a channel axis in front; none without such an axis.
    """
    along = [v05.ChannelAxis(name="c", type="channel")] if channels else []
    image = v05.Image(
        multiscales=[
            v05.Multiscale(
                name=name,
                axes=[*along, *(v05.SpaceAxis(name=axis, unit="nanometer") for axis in ("z", "y", "x"))],
                datasets=[
                    v05.Dataset(
                        path="0",
                        coordinateTransformations=[v05.ScaleTransformation(scale=[1.0] * len(along) + list(voxel_nm))],
                    )
                ],
            )
        ],
        omero=v05.Omero(channels=[_shown(channel) for channel in channels]) if channels else None,
    )
    attributes: dict[str, Any] = image.model_dump(mode="json", exclude_none=True)
    return {"version": "0.5", **attributes}


def _shown(channel: str) -> v05.OmeroChannel:
    """How viewers name and draw a channel of probabilities: black to white over all bytes."""
    return v05.OmeroChannel(
        label=channel, color="FFFFFF", active=True, window=v05.OmeroWindow(start=0, min=0, end=255, max=255)
    )
