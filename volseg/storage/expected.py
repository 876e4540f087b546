"""What the metadata of a target must be, by its run record: compared with what is there, and put back."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import zarr
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.storage import LocalStore, ObjectStore, StorePath

from volseg.errors import TargetError
from volseg.storage.create import create_target
from volseg.storage.durable import sync_folder, write_synced
from volseg.storage.metadata_file import read_metadata
from volseg.storage.object_client import reading_client
from volseg.storage.object_path import ObjectPath
from volseg.storage.pyramid import Pyramid, pyramid_of, volume_names
from volseg.storage.shards import NATIVE
from volseg.storage.target import Target
from volseg.text import parse_object

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from volseg.storage.object_path import TargetPath
    from volseg.storage.run_record import RunRecord

_METADATA = "zarr.json"


@dataclass(frozen=True)
class MetadataFault:
    """A file of a target's metadata that is not as its run says.

    Attributes:
        file: its path in the target.
        reason: what differs.
        content: that it should have.
    """

    file: str
    reason: str
    content: bytes


def expected_pyramid(path: TargetPath, record: RunRecord) -> Pyramid:
    """The volumes of a target by its run record alone, whatever its metadata are; zarrs reads them."""

    def opened(name: str, level: str) -> Target:
        document = json.loads(_fresh_files(record)[f"{name}/{level}/{_METADATA}".lstrip("/")])
        folder = path / name / level
        if isinstance(folder, ObjectPath):
            place, pipeline = StorePath(ObjectStore(reading_client(folder.root), read_only=True), folder.key), {}
        else:
            place, pipeline = StorePath(LocalStore(folder, read_only=True)), NATIVE
        # The pipeline is read when an array is made.
        with zarr.config.set(pipeline):
            array: zarr.Array[Any] = zarr.Array(zarr.AsyncArray(ArrayV3Metadata.from_dict(document), place))
        return Target(path / name, array, level)

    return pyramid_of(record.pyramid, volume_names(record), opened)


def metadata_faults(path: TargetPath, record: RunRecord) -> list[MetadataFault]:
    """Compare the metadata of a target with its run record; other levels, labels and attributes do not matter."""
    faults = []
    for file, fresh in _fresh_files(record).items():
        expected = json.loads(fresh)
        try:
            found = parse_object(read_metadata(path / file))
        except FileNotFoundError:
            faults.append(MetadataFault(file, "is missing", _content(path, file, {}, fresh)))
            continue
        except (OSError, ValueError) as error:
            faults.append(MetadataFault(file, f"cannot be read: {error}", _content(path, file, {}, fresh)))
            continue
        if _is_array(file):
            differing = _array_differences(found, expected)
        else:
            differing = _group_differences((path / file).parent, found, expected, record)
        if differing:
            reason = f"other {', '.join(differing)} than its run"
            faults.append(MetadataFault(file, reason, _content(path, file, found, fresh)))
    return faults


def restore_metadata(path: Path, fault: MetadataFault) -> None:
    """Put a file of a target's metadata back, whole and synced.

    Raises:
        TargetError: it cannot be written.
    """
    file = path / fault.file
    partial = file.with_suffix(f".{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        write_synced(partial, fault.content)
        partial.replace(file)
        sync_folder(file.parent)
    except OSError as error:
        raise TargetError(f"cannot write {file}: {error.strerror or error}") from error


def _is_array(file: str) -> bool:
    """Whether a file holds the metadata of a level, not those of a group."""
    return Path(file).parent.name.isdecimal()


@lru_cache(maxsize=4)
def _fresh_files(record: RunRecord) -> dict[str, bytes]:
    """Metadata files of a new target of a run, by their path in it; the arrays come first."""
    with TemporaryDirectory(prefix="volseg-") as folder:
        path = Path(folder) / "target.zarr"
        create_target(path, record, record.place)
        files = [file for file in sorted(path.rglob("zarr.json")) if ".volseg" not in file.parts]
        return {str(file.relative_to(path)): file.read_bytes() for file in files}


def _array_differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Names of the fields of an array's metadata that differ, however they are written."""
    if _text(found) == _text(expected):
        return []
    try:
        found = _canonical(found)
    except Exception as error:  # each field raises errors of its own
        named = [name for name in sorted(found.keys() | expected.keys()) if _differs(name, found, expected)]
        return named or [f"content ({error})"]
    expected = _canonical(expected)
    return [name for name in sorted(found.keys() | expected.keys()) if _differs(name, found, expected)]


def _differs(name: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    return name not in found or name not in expected or _text(found[name]) != _text(expected[name])


def _canonical(document: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = ArrayV3Metadata.from_dict(dict(document)).to_dict()
    parsed: dict[str, Any] = json.loads(json.dumps(values, default=lambda value: value.to_dict()))
    return parsed


def _text(value: Any) -> str:
    """JSON in which 0, 0.0 and false differ."""
    return json.dumps(value, sort_keys=True)


def _group_differences(
    group: TargetPath, found: Mapping[str, Any], expected: Mapping[str, Any], record: RunRecord
) -> list[str]:
    """What differs in a group of what says where its map lies and how it is read."""
    differing = [name for name in ("zarr_format", "node_type") if _differs(name, found, expected)]
    try:
        own = [str(level) for level in range(len(record.settings.levels) + 1)]
        theirs, ours = (_image(document, own) for document in (found, expected))
        levels = found["attributes"]["ome"]["multiscales"][0]["datasets"]
        lost = [level for level in levels if not _is_level(group, level, own)]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return [*differing, "OME metadata"]
    differing += [name for name in ours if _differs(name, theirs, ours)]
    differing += ["levels"] if lost else []
    consolidated = found.get("consolidated_metadata")
    if consolidated is None:
        return differing
    entries = consolidated.get("metadata") if isinstance(consolidated, dict) else None
    if not isinstance(entries, dict):
        return [*differing, "consolidated metadata"]
    for file, fresh in _fresh_files(record).items():
        name = file.removesuffix(f"/{_METADATA}")
        if _is_array(file) and name in entries and _array_differences(entries[name], json.loads(fresh)):
            differing.append(f"consolidated metadata of {name}")
    return differing


def _is_level(group: TargetPath, level: Mapping[str, Any], own: Sequence[str]) -> bool:
    """Whether an entry of the levels is one of the run's own, whose arrays are compared apart, or has an array."""
    name = str(level["path"])
    return name in own or any((group / name / file).is_file() for file in ("zarr.json", ".zarray"))


def _image(document: Mapping[str, Any], own: Sequence[str]) -> dict[str, Any]:
    """The parts of an OME-Zarr 0.5 group that a run decides.

    Args:
        document: of the group.
        own: names of the run's levels.
    """
    ome = document["attributes"]["ome"]
    multiscale = ome["multiscales"][0]
    levels = [dataset for name in own for dataset in multiscale["datasets"] if dataset["path"] == name]
    if len(levels) != len(own):
        raise ValueError("levels of the run are not listed, or twice")
    places = [level.get("coordinateTransformations") for level in levels]
    place = (places, multiscale.get("coordinateTransformations"))
    channels = (ome.get("omero") or {}).get("channels") or []
    return {
        "version": ome.get("version"),
        "axes": [(axis["name"], axis["type"], axis.get("unit")) for axis in multiscale["axes"]],
        "scale or translation": place,
        "finest level": multiscale["datasets"][0]["path"],
        "channel names": [channel["label"] for channel in channels] if len(multiscale["axes"]) > 3 else [],
    }


def _content(path: TargetPath, file: str, found: Mapping[str, Any], fresh: bytes) -> bytes:
    """What a file should hold: as in a new target, with what others added to a group."""
    if _is_array(file):
        return fresh
    document, old = json.loads(fresh), found.get("attributes")
    old = old if isinstance(old, dict) else {}
    theirs = old["ome"] if isinstance(old.get("ome"), dict) else {}
    attributes = document["attributes"]
    multiscale = attributes["ome"]["multiscales"][0]
    multiscale["name"] = " ".join([path.name.removesuffix(".zarr"), *Path(file).parts[:-1]])
    try:
        first, *others = theirs["multiscales"]
        group, own = (path / file).parent, [level["path"] for level in multiscale["datasets"]]
        levels = [level for level in first["datasets"] if level["path"] not in own and _is_level(group, level, own)]
        multiscale["name"] = str(first["name"])
        multiscale["datasets"] += levels
        attributes["ome"]["multiscales"] += others
    except (KeyError, TypeError, ValueError):  # metadata of no known form
        pass
    document["attributes"] = old | attributes | {"ome": theirs | attributes["ome"]}
    if "volseg" in old:
        document["attributes"]["volseg"] = old["volseg"]
    return json.dumps(document, indent=2).encode()
