"""Damages files of every format with a seed, and reads them as volseg does."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import tifffile
from PIL import Image

from volseg.blocks import Box
from volseg.config import TrainConfig, read_toml
from volseg.errors import VolsegError
from volseg.models.card import read_card
from volseg.models.model import load_model_file
from volseg.storage import open_readable
from volseg.testing.factories import blobs, make_volume

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

SHAPE = (3, 32, 32)
RUN = """
[[data]]
raw = "raw.zarr"
labels = "labels.tif"
train = [[0, 8]]

[network]
name = "fusionnet"
arguments = { width = 4, depth = 2 }

[fit]
steps = 5

[output]
folder = "run"
name = "m"
"""
_STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 10**12, 10**400, float("nan"), float("inf"), "", "..", "\0", "a" * 300, [], {}, [[]],
    [-1, 0, 10**15], {"a": []}, "\N{REVERSED SEMICOLON}",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A file to damage, and how it is read afterwards.

    Attributes:
        name: of the format.
        file: whose bytes are changed.
        read: opens and reads what the file belongs to.
    """

    name: str
    file: Path
    read: Callable[[], object]


def make_targets(folder: Path, model: Path) -> list[Target]:
    """Write one valid file of each format."""
    voxels = blobs(SHAPE)
    image = make_volume(folder / "image.zarr", SHAPE, chunk=(1, 16, 16))
    shutil.copytree(image / "0", folder / "array.zarr")
    old = folder / "old.zarr"
    old.mkdir()
    document = {"zarr_format": 2, "shape": SHAPE, "chunks": SHAPE, "dtype": "|u1", "order": "C", "fill_value": 0}
    (old / ".zarray").write_text(json.dumps(document | {"compressor": {"id": "zlib", "level": 1}, "filters": None}))
    (old / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": ["z", "y", "x"], "resolution": [50, 4, 4]}))
    tifffile.imwrite(folder / "stack.tif", voxels, photometric="minisblack", compression="zlib")
    tifffile.imwrite(folder / "plain.tif", voxels, imagej=True, metadata={"axes": "ZYX"})
    (folder / "png").mkdir()
    (folder / "jpg").mkdir()
    for z, section in enumerate(voxels):
        Image.fromarray(section).save(folder / "png" / f"{z}.png")
        Image.fromarray(section).save(folder / "jpg" / f"{z}.jpg")
    with h5py.File(folder / "raw.h5", "w") as file:
        raw = file.create_dataset("volumes/raw", data=voxels, chunks=(1, 16, 16), compression="gzip")
        raw.attrs["resolution"] = [50.0, 4.0, 4.0]
        file["soft"] = h5py.SoftLink("/volumes/raw")
    (folder / "run.toml").write_text(RUN)
    shutil.copyfile(model, folder / "m.safetensors")
    return targets_in(folder)


def targets_in(folder: Path) -> list[Target]:
    """The files that `make_targets` wrote into a folder."""
    image, old, copy = folder / "image.zarr", folder / "old.zarr", folder / "m.safetensors"

    def volume(location: Path | str) -> Callable[[], object]:
        def read() -> object:
            opened = open_readable(str(location))
            return opened.read(Box((0, 0, 0), tuple(min(n, 32) for n in opened.shape)))

        return read

    def read_model() -> None:
        read_card(copy)
        load_model_file(copy)

    return [
        Target("run file", folder / "run.toml", lambda: read_toml(folder / "run.toml", TrainConfig)),
        Target("OME-Zarr", image / "zarr.json", volume(image)),
        Target("Zarr 3", folder / "array.zarr" / "zarr.json", volume(folder / "array.zarr")),
        Target("chunk", next(p for p in (folder / "array.zarr" / "c").rglob("*") if p.is_file()),
               volume(folder / "array.zarr")),
        Target("Zarr 2", old / ".zarray", volume(old)),
        Target("attributes of Zarr 2", old / ".zattrs", volume(old)),
        Target("TIFF", folder / "stack.tif", volume(folder / "stack.tif")),
        Target("TIFF of ImageJ", folder / "plain.tif", volume(folder / "plain.tif")),
        Target("PNG", folder / "png" / "1.png", volume(folder / "png")),
        Target("JPEG", folder / "jpg" / "0.jpg", volume(folder / "jpg")),
        Target("HDF5", folder / "raw.h5", volume(f"{folder / 'raw.h5'}:volumes/raw")),
        Target("model", copy, read_model),
    ]  # fmt: skip


def damaged(content: bytes, random_: random.Random) -> bytes:
    """Flip bits or bytes, cut, splice, repeat, or replace a value of JSON."""
    kind = random_.randrange(7)
    if kind == 0 and (changed := _with_strange_value(content, random_)) is not None:
        return changed
    data = bytearray(content)
    # Most of what is not voxels lies at the beginning or at the end.
    where = random_.choice([len(data), min(len(data), 2048), min(len(data), 256)])
    at = random_.randrange(where) if random_.random() < 0.7 else len(data) - 1 - random_.randrange(where)
    if kind <= 2:
        for _ in range(random_.choice([1, 1, 2, 8, 64])):
            position = min(max(at + random_.randrange(-32, 33), 0), len(data) - 1)
            data[position] = random_.choice(
                [data[position] ^ 1 << random_.randrange(8), 0, 255, random_.randrange(256)]
            )
    elif kind == 3:
        del data[at:]
    elif kind == 4:
        del data[at : at + random_.randrange(1, 64)]
    elif kind == 5:
        other = random_.randrange(len(data))
        data[at:at] = data[other : other + random_.randrange(1, 128)]
    else:
        data[at : at + 8] = random_.choice([b"\xff" * 8, b"\0" * 8, (1 << 62).to_bytes(8, "little"), b"[[[[[[[["])
    return bytes(data)


def _with_strange_value(content: bytes, random_: random.Random) -> bytes | None:
    """A JSON document, or the header of a model file with its card, with one value replaced; None for others."""
    length = int.from_bytes(content[:8], "little")
    is_model = length < len(content)
    try:
        document = json.loads(content[8 : 8 + length] if is_model else content)
    except ValueError:
        return None
    metadata = document.get("__metadata__", {})
    if is_model and random_.random() < 0.8:
        card = json.loads(metadata["volseg"])
        replace_value(card, random_)
        document["__metadata__"] = {"volseg": json.dumps(card)}
    else:
        replace_value(document, random_)
    text = json.dumps(document).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :] if is_model else text


def replace_value(document: Any, random_: random.Random) -> None:
    """Delete or replace one value of a JSON document, at any depth."""
    places = []
    waiting = [document]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        places += [(node, key) for key in keys]
        waiting += [node[key] for key in keys if isinstance(node[key], dict | list)]
    node, key = random_.choice(places)
    if random_.random() < 0.2:
        del node[key]
    else:
        node[key] = random_.choice(_STRANGE)


def outcome(target: Target, content: bytes) -> str:
    """What reading a damaged file ends in: `read`, or the line of a VolsegError.

    Raises:
        AssertionError: another error, or a message of several lines.
    """
    target.file.write_bytes(content)
    try:
        target.read()
    except VolsegError as error:
        line = str(error)
        assert len(line.splitlines()) == 1, line
        assert len(line) < 1500, line
        return line
    except Exception as error:
        raise AssertionError(f"{target.name}: {type(error).__name__}: {error}") from error
    return "read"
