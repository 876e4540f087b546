"""`datasource-properties.json` of WEBKNOSSOS: layers, magnifications, bounding boxes and voxel size."""

from __future__ import annotations

from dataclasses import dataclass
from posixpath import normpath
from typing import TYPE_CHECKING, Any

from volseg.storage.formats.json_files import sizes_of, whole_numbers
from volseg.storage.ome_zarr import level_paths
from volseg.storage.place import Place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

METADATA = "datasource-properties.json"


@dataclass(frozen=True)
class Mag:
    """A magnification; values along x, y, z.

    Attributes:
        factors: voxels of magnification 1 that a voxel spans.
        paths: of its array, below the dataset; the first that exists counts.
        axes: names of the stored axes; empty if not stated.
    """

    factors: tuple[int, ...]
    paths: tuple[str, ...]
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """A layer; values along x, y, z.

    Attributes:
        name: of the layer.
        format: of its arrays, such as `zarr3`.
        first: first voxel of its bounding box, in magnification 1.
        stop: the voxel after its last.
        scale: voxel size of magnification 1.
        unit: of the scale.
        mags: finest first.
    """

    name: str
    format: str
    first: tuple[int, ...]
    stop: tuple[int, ...]
    scale: tuple[float, ...]
    unit: str
    mags: tuple[Mag, ...]

    def box(self, mag: Mag) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The bounding box in voxels of a magnification: first, and after the last."""
        first = tuple(a // factor for a, factor in zip(self.first, mag.factors, strict=True))
        stop = tuple(-(-b // factor) for b, factor in zip(self.stop, mag.factors, strict=True))
        return first, stop

    def place(self, mag: Mag) -> Place:
        """Voxel size, and the centre of the first voxel of the bounding box, where that of magnification 1 is at 0."""
        size = [scale * factor for scale, factor in zip(self.scale, mag.factors, strict=True)]
        first, _ = self.box(mag)
        start = [a * s + (s - one) / 2 for a, s, one in zip(first, size, self.scale, strict=True)]
        return Place.stated(size[::-1], start[::-1], [self.unit] * 3)


def layers_of(document: Mapping[str, Any]) -> list[Layer]:
    """Return the layers of a dataset.

    Raises:
        AttributeError, IndexError, KeyError, TypeError, ValueError: invalid metadata.
    """
    scale = document.get("scale") or {}
    factors, unit = (scale["factor"], scale.get("unit", "nanometer")) if isinstance(scale, dict) else (scale, "nm")
    size = tuple(float(value) for value in factors)
    if len(size) != 3:
        raise ValueError(f"scale {factors} is not three numbers")
    return [_layer(entry, size, str(unit)) for entry in document["dataLayers"]]


def _layer(entry: Mapping[str, Any], scale: tuple[float, ...], unit: str) -> Layer:
    name, box = str(entry["name"]), entry["boundingBox"]
    first = whole_numbers(box, "topLeft")
    extent = sizes_of({"boundingBox": [box["width"], box["height"], box["depth"]]}, "boundingBox")
    if len(first) != 3 or min(first) < 0:
        raise ValueError(f"topLeft {first} of layer {name} is not three numbers from 0")
    stated = entry.get("mags") or entry.get("wkwResolutions") or []
    mags = sorted((_mag(name, mag) for mag in stated), key=lambda mag: mag.factors)
    stop = tuple(a + n for a, n in zip(first, extent, strict=True))
    return Layer(name, str(entry.get("dataFormat", "wkw")), first, stop, scale, unit, tuple(mags))


def _mag(layer: str, entry: Mapping[str, Any]) -> Mag:
    stated = entry.get("mag", entry.get("resolution"))
    values = stated.split("-") if isinstance(stated, str) else stated if isinstance(stated, list) else [stated]
    factors = sizes_of({"mag": values * 3 if len(values) == 1 else values}, "mag")
    if len(factors) != 3:
        raise ValueError(f"mag {stated} of layer {layer} is not one number or three")
    long, short = "-".join(map(str, factors)), str(factors[0])
    names = (short, long) if len(set(factors)) == 1 else (long,)
    path = entry.get("path")
    if path is not None and "://" in str(path):
        raise ValueError(f"mag {stated} of layer {layer} lies at another place, {path}; name that")
    paths = [str(path)] if path is not None else [f"{layer}/{name}" for name in names]
    order = entry.get("axisOrder") or {}
    axes = sorted((str(name) for name in order), key=lambda name: int(order[name]))
    return Mag(factors, tuple(normpath(one) for one in _inside(paths)), tuple(axes))


def _inside(paths: Sequence[str]) -> list[str]:
    """The paths, none of which leaves the dataset."""
    return level_paths({"datasets": [{"path": path} for path in paths]})
