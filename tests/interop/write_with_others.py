"""Writes volumes with the programs of others, in their environment.

python -m tests.interop.write_with_others FOLDER FILES.json
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import dataclass, field
from importlib import import_module, metadata
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.interop.files import FIRST, SHAPE, SIZE, START, TYPES, File, pattern, save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

XYZ_SIZE, XYZ_FIRST, XYZ_SHAPE = SIZE[::-1], FIRST[::-1], SHAPE[::-1]
NUMBERS = tuple(dtype for dtype in TYPES if dtype != "bool")
BLOSC: dict[str, Any] = {"cname": "lz4", "clevel": 5, "shuffle": 1}
SHARDING = {
    "@type": "neuroglancer_uint64_sharded_v1", "hash": "identity", "preshift_bits": 2, "minishard_bits": 3,
    "shard_bits": 0, "minishard_index_encoding": "gzip", "data_encoding": "gzip",
}  # fmt: skip


def cloud_volume(path: str, xyz: NDArray[Any], encoding: str = "raw", *, gzip: bool = False, shard: bool = False):
    library = import_module("cloudvolume").CloudVolume
    layer = "image" if encoding == "raw" else "segmentation"
    info = library.create_new_info(
        1, layer, xyz.dtype.name, encoding, XYZ_SIZE, XYZ_FIRST, XYZ_SHAPE, chunk_size=(16, 16, 8)
    )
    if shard:
        info["scales"][0]["sharding"] = SHARDING
    volume = library(f"precomputed://file://{path}", info=info, progress=False, compress="gzip" if gzip else None)
    volume.commit_info()
    volume[:, :, :] = np.asfortranarray(xyz)[..., None]


def webknossos(path: str, xyz: NDArray[Any], kind: str) -> None:
    library = import_module("webknossos")
    box = library.BoundingBox(XYZ_FIRST, XYZ_SHAPE)
    dataset = library.Dataset(path, voxel_size=XYZ_SIZE)
    name = "segmentation" if xyz.dtype.itemsize == 8 else "color"
    layer = dataset.add_layer(name, name, dtype=xyz.dtype.name, data_format=kind, bounding_box=box)
    mag = layer.add_mag(1, chunk_shape=32, shard_shape=32 if kind == "zarr" else 64)
    mag.write(xyz, absolute_offset=XYZ_FIRST, allow_unaligned=True)


def ome_zarr(path: str, zyx: NDArray[Any], version: str) -> None:
    library = import_module("ome_zarr.format")
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    place = [{"type": "scale", "scale": SIZE}, {"type": "translation", "translation": START}]
    kind = {"0.4": library.FormatV04, "0.5": library.FormatV05}[version]()
    import_module("ome_zarr.writer").write_multiscale(
        [zyx], path, axes=axes, coordinate_transformations=[place], fmt=kind
    )


def ngff_zarr(path: str, zyx: NDArray[Any], version: str, **options: Any) -> None:
    library = import_module("ngff_zarr")
    size, start = (dict(zip("zyx", values, strict=True)) for values in (SIZE, START))
    units = dict.fromkeys("zyx", "nanometer")
    image = library.to_ngff_image(zyx, dims=("z", "y", "x"), scale=size, translation=start, axes_units=units)
    library.to_ngff_zarr(path, library.to_multiscales(image, [2], chunks=16), version=version, **options)


def zarr(path: str, zyx: NDArray[Any], **options: Any) -> None:
    attributes = {"resolution": SIZE, "offset": START, "units": ["nm"] * 3}
    import_module("zarr").create_array(path, data=zyx, chunks=(8, 16, 16), attributes=attributes, **options)


def zipped(path: str, zyx: NDArray[Any]) -> None:
    with import_module("zarr").storage.ZipStore(path, mode="w") as store:
        zarr(store, zyx)


def precomputed(path: str, xyz: NDArray[Any], encoding: str = "raw", *, shard: bool = False) -> None:
    scale: dict[str, Any] = {
        "resolution": XYZ_SIZE, "encoding": encoding, "chunk_size": [16, 16, 8], "size": XYZ_SHAPE,
        "voxel_offset": XYZ_FIRST,
    }  # fmt: skip
    scale |= {"sharding": SHARDING} if shard else {}
    scale |= {"compressed_segmentation_block_size": [8] * 3} if encoding != "raw" else {}
    kind = {"type": "image" if encoding == "raw" else "segmentation", "data_type": xyz.dtype.name, "num_channels": 1}
    spec = {
        "driver": "neuroglancer_precomputed", "kvstore": f"file://{path}/", "scale_metadata": scale,
        "multiscale_metadata": kind,
    }  # fmt: skip
    import_module("tensorstore").open(spec, create=True).result()[..., 0] = xyz


def n5(path: str, xyz: NDArray[Any], compression: str, **parameters: Any) -> None:
    about = {
        "dimensions": XYZ_SHAPE, "blockSize": [16, 16, 8], "dataType": xyz.dtype.name, "axes": ["x", "y", "z"],
        "compression": {"type": compression, **parameters}, "resolution": XYZ_SIZE, "units": ["nm"] * 3,
    }  # fmt: skip
    spec = {"driver": "n5", "kvstore": f"file://{path}/", "metadata": about}
    import_module("tensorstore").open(spec, create=True).result()[...] = xyz
    file = Path(path) / "attributes.json"
    transform = {"axes": ["z", "y", "x"], "scale": SIZE, "translate": START, "units": ["nm"] * 3}  # of COSEM
    file.write_text(json.dumps(json.loads(file.read_text()) | {"transform": transform}))


def h5py(path: str, zyx: NDArray[Any]) -> None:
    with import_module("h5py").File(path, "w") as file:
        data = file.create_dataset("volumes/raw", data=zyx, chunks=(8, 16, 16), compression="gzip")
        data.attrs["resolution"], data.attrs["offset"] = SIZE, START


def imagej(path: str, zyx: NDArray[Any]) -> None:
    about = {"axes": "ZYX", "spacing": SIZE[0], "unit": "nm"}
    resolution = (1 / SIZE[2], 1 / SIZE[1])
    import_module("tifffile").imwrite(path, zyx, imagej=True, resolution=resolution, metadata=about)


def ome_tiff(path: str, zyx: NDArray[Any], **options: Any) -> None:
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", SIZE, strict=True)}
    units = {f"PhysicalSize{axis}Unit": "nm" for axis in "ZYX"}
    import_module("tifffile").imwrite(path, zyx, ome=True, metadata={"axes": "ZYX", **sizes, **units}, **options)


def png(path: str, zyx: NDArray[Any]) -> None:
    Path(path).mkdir()
    for number, section in enumerate(zyx):
        import_module("PIL.Image").fromarray(section).save(f"{path}/{number}.png")


def mrc(path: str, zyx: NDArray[Any]) -> None:
    with import_module("mrcfile").new(path) as file:
        file.set_data(zyx)
        file.voxel_size = tuple(size * 10 for size in XYZ_SIZE)  # in angstrom
        file.header.nzstart, file.header.nystart, file.header.nxstart = FIRST


def nrrd(path: str, xyz: NDArray[Any], encoding: str) -> None:
    place = {"space directions": np.diag(XYZ_SIZE), "space origin": START[::-1], "space dimension": 3}
    about = {**place, "space units": ["nm"] * 3, "encoding": encoding}
    import_module("nrrd").write(path, xyz, about)


def nifti(path: str, xyz: NDArray[Any]) -> None:
    affine = np.diag([*(size / 1000 for size in XYZ_SIZE), 1.0])
    affine[:3, 3] = [start / 1000 for start in START[::-1]]
    image = import_module("nibabel").Nifti1Image(xyz, affine)
    image.header.set_xyzt_units("micron")
    import_module("nibabel").save(image, path)


@dataclass(frozen=True)
class Kind:
    """Volumes that a program writes.

    Attributes:
        format: as in the table.
        program: that writes them.
        types: one volume is written of each.
        write: takes a path, the voxels and `options`.
        variant: of the format.
        options: of the program.
        suffix: of the names.
        axes: in which `write` takes the voxels.
        size: whether the format states the voxel size.
        start: whether it states the place.
    """

    format: str
    program: str
    types: tuple[str, ...]
    write: Callable[..., None]
    variant: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    suffix: str = ""
    axes: str = "zyx"
    size: bool = True
    start: bool = True

    def written(self, folder: Path) -> list[File]:
        """Write the volumes into a new folder."""
        folder.mkdir()
        program, files = f"{self.program} {metadata.version(self.program)}", []
        for dtype in self.types:
            path = str(folder / f"{dtype}{self.suffix}")
            voxels = pattern(dtype) if self.axes == "zyx" else pattern(dtype).transpose(2, 1, 0)
            self.write(path, voxels, **self.options)
            files.append(File(self.format, path, dtype, program, self.variant, self.size, self.start))
        return files


def kinds() -> Iterator[Kind]:
    """All formats, variants and types."""
    options: dict[str, Any]
    for version in ("0.4", "0.5"):
        yield Kind("ome-zarr", "ome-zarr", TYPES, ome_zarr, version, {"version": version})
        yield Kind("ome-zarr", "ngff-zarr", NUMBERS, ngff_zarr, version, {"version": version})
    yield Kind("ome-zarr", "ngff-zarr", NUMBERS, ngff_zarr, "0.5 sharded", {"version": "0.5", "chunks_per_shard": 2})
    yield Kind("zarr", "zarr", TYPES, zarr, "2", {"zarr_format": 2})
    yield Kind("zarr", "zarr", TYPES, zarr, "3")
    yield Kind("zarr", "zarr", TYPES, zarr, "3 sharded", {"shards": (8, 32, 32)})
    yield Kind("zarr", "zarr", TYPES, zipped, "3 in a zip file", suffix=".zarr.zip")
    raw, labels = (*NUMBERS[:6], "float32"), ("uint32", "uint64")
    writers: dict[str, Callable[..., None]] = {"tensorstore": precomputed, "cloud-volume": cloud_volume}
    for program, write in writers.items():
        for (types, encoding), shard in product(((raw, "raw"), (labels, "compressed_segmentation")), (False, True)):
            variant, options = f"{encoding} sharded" if shard else encoding, {"encoding": encoding, "shard": shard}
            yield Kind("precomputed", program, types, write, variant, options, axes="xyz")
    yield Kind("precomputed", "cloud-volume", raw, cloud_volume, "raw with gzip", {"gzip": True}, axes="xyz")
    yield Kind("n5", "tensorstore", NUMBERS, n5, "gzip", {"compression": "gzip"}, axes="xyz")
    for compression in ("raw", "bzip2", "xz", "blosc", "zstd"):
        options = {"compression": compression} | (BLOSC if compression == "blosc" else {})
        yield Kind("n5", "tensorstore", ("uint8",), n5, compression, options, axes="xyz")
    yield Kind("hdf5", "h5py", TYPES, h5py, "gzip", suffix=".h5")
    yield Kind("imagej", "tifffile", ("uint8", "uint16", "float32"), imagej, suffix=".tif", start=False)
    narrow = tuple(dtype for dtype in NUMBERS if not dtype.endswith("int64"))
    yield Kind("ome-tiff", "tifffile", narrow, ome_tiff, suffix=".ome.tif", start=False)
    yield Kind("sections", "pillow", ("uint8", "uint16"), png, "PNG", size=False, start=False)
    yield Kind("mrc", "mrcfile", ("uint16", "int16", "float32"), mrc, suffix=".mrc")
    for encoding in ("raw", "gzip"):
        yield Kind("nrrd", "pynrrd", NUMBERS, nrrd, encoding, {"encoding": encoding}, ".nrrd", "xyz")
    for suffix in (".nii", ".nii.gz"):
        yield Kind("nifti", "nibabel", narrow, nifti, suffix, suffix=suffix, axes="xyz")
    for kind in ("zarr3", "zarr", "wkw"):
        yield Kind("webknossos", "webknossos", NUMBERS, webknossos, kind, {"kind": kind}, axes="xyz")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    save(Path(sys.argv[2]), [file for n, kind in enumerate(kinds()) for file in kind.written(folder / str(n))])
