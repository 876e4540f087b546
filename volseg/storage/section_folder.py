"""Folders with one image file for each section."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.errors import SourceError
from volseg.storage.axes import DEFAULT_OPTIONS, ReadOptions
from volseg.storage.foreign import foreign_format
from volseg.storage.picture import read_picture
from volseg.storage.place import Place
from volseg.storage.tiff import open_tiff
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import Zyx
    from volseg.storage.tiff import Values

TIFF = (".tif", ".tiff")
_JPEG = (".jpg", ".jpeg")
_IMAGES = (*TIFF, ".png", *_JPEG, ".bmp")
_NUMBER, _FRACTION = re.compile("[0-9]+"), re.compile(r"(?<=[0-9]\.)[0-9]+")
_LISTED = 8


@dataclass(frozen=True)
class FolderStack:
    """Image files of one section each, in natural order: section 9 before section 10.

    Attributes:
        sections: file of each section; None for a blank one.
        shape: sections, rows, columns.
        dtype: of the sections as read.
        values: what the values are.
        lost: sections whose numbers are missing, in words.
    """

    sections: tuple[Path | None, ...]
    shape: Zyx
    dtype: str
    values: Values
    lost: str = ""

    @property
    def place(self) -> Place:
        """Not known."""
        return Place()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read."""
        return tuple(path for path in self.sections if path is not None)

    def read(self, first: int, stop: int) -> NDArray[Any]:
        """Read sections [first, stop) as (z, y, x).

        Raises:
            SourceError: a section cannot be read, or differs in shape or type.
        """
        return np.stack([self._section(path) for path in self.sections[first:stop]])

    def _section(self, path: Path | None) -> NDArray[Any]:
        if path is None:
            return np.zeros(self.shape[1:], self.dtype)
        section = _read_image(path, self.values)
        if section.shape != self.shape[1:] or section.dtype.name != self.dtype:
            raise SourceError(
                f"{path} is {section.shape} {section.dtype.name}, but the first section is {self.shape[1:]} "
                f"{self.dtype}; all sections of a stack must have one shape and type"
            )
        return section


def open_folder(path: Path, options: ReadOptions, values: Values) -> FolderStack:
    """Open a folder of sections; one section is read.

    Args:
        path: of the folder, or a pattern of the files' names in it.
        options: what to read for missing sections.
        values: what the values are.

    Raises:
        SourceError: no images, images that are not grey sections, or sections that are missing or there twice.
    """
    files = section_files(path)
    if not files and is_pattern(path):
        raise SourceError(_no_section(path))
    if not files:
        raise SourceError(
            foreign_format(str(path))
            or f"{path} is not a Zarr, and holds no .tif, .tiff, .png, .jpg or .bmp section; check the path"
        )
    if odd := [f for f in files if not f.is_file()]:
        raise SourceError(f"{odd[0]} is a pipe, a device or a broken link, and no section; take it out of the folder")
    if values == "labels" and any(f.suffix.lower() in _JPEG for f in files):
        raise SourceError(f"{path} holds JPEG sections, whose values are not exact; save labels as PNG or TIFF")
    if options.axes is not None or options.channel is not None:
        raise SourceError(
            f"{path} holds sections, which have no other axes or channels; leave --axes and --channel out"
        )
    sections, lost = _with_missing(path, files, options.missing)
    first = _read_image(files[0], values)
    return FolderStack(tuple(sections), (len(sections), *first.shape), first.dtype.name, values, lost)


def is_pattern(path: Path) -> bool:
    """Whether a path is a pattern of names in a folder, such as `sections/*.png`, and no file."""
    return any(letter in path.name for letter in "*?[") and path.parent.is_dir() and not path.exists()


def has_sections(folder: Path) -> bool:
    """Whether a folder holds a file with the name of an image."""
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(_IMAGES) and not entry.name.startswith(".") for entry in entries)


def section_files(path: Path) -> list[Path]:
    """The image files of a folder, or of a pattern, in natural order."""
    folder, pattern = (path.parent, path.name) if is_pattern(path) else (path, "*")
    found = (f for f in folder.iterdir() if f.suffix.lower() in _IMAGES and not f.name.startswith("."))
    return sorted((f for f in found if fnmatchcase(f.name, pattern) and not f.is_dir()), key=_natural)


def _no_section(pattern: Path) -> str:
    """The refusal of a pattern that no section has."""
    names = sorted(entry.name for entry in pattern.parent.iterdir() if fnmatchcase(entry.name, pattern.name))
    if not names:
        return f"nothing in {pattern.parent} is named {pattern.name}; check the pattern"
    more = ", .." if len(names) > _LISTED else ""
    return (
        f"{pattern} matches {', '.join(names[:_LISTED])}{more}, and no .tif, .tiff, .png, .jpg or .bmp section; a "
        "pattern is of the sections of one volume: name a volume of another format by itself"
    )


def _with_missing(folder: Path, files: list[Path], missing: str) -> tuple[list[Path | None], str]:
    """The file of each section, where numbers are missing too; and the names of those in words."""
    _refuse_several_series(folder, files)
    sections: dict[Path, list[Path | None]] = {}
    lost: list[str] = []
    for place, number, before, after in _gaps(folder, files):
        lost.append(_name(before, place, number))
        nearest = before if number - _number(before, place) <= _number(after, place) - number else after
        sections.setdefault(before, []).append(nearest if missing == "nearest" else None)
    names = f"{counted(len(lost), 'numbered section')}: {', '.join(lost[:_LISTED])}" if lost else ""
    names += ", .." if len(lost) > _LISTED else ""
    if lost and missing == "refuse":
        raise SourceError(
            f"{folder} lacks {names}; add them, renumber the files if none is missing, or predict or convert it with "
            "--missing blank or --missing nearest"
        )
    return [section for file in files for section in (file, *sections.get(file, ()))], names


def _refuse_several_series(folder: Path, files: Sequence[Path]) -> None:
    """Refuse names that differ in more than numbers, unless none has a number: their order is nobody's intention."""
    if not any(_NUMBER.search(file.stem) for file in files):
        return
    first = {tuple(_NUMBER.split(file.stem)): file for file in reversed(files)}
    if len(first) > 1:
        one, other = list(first.values())[-2:]
        raise SourceError(
            f"{folder} holds images whose names differ in more than their number, such as {one.name} and {other.name}; "
            "keep the sections of one volume in a folder of their own"
        )
    fractions = [_FRACTION.findall(file.stem) for file in files]
    if any(len({len(entry[k]) for entry in fractions}) > 1 for k in range(len(fractions[0]))):
        raise SourceError(f"{folder} holds images with decimal numbers of unlike length; number them 1, 2, 3, ..")


def _gaps(folder: Path, files: Sequence[Path]) -> list[tuple[int, int, Path, Path]]:
    """Missing numbers in the names: place of the number in a name, number, and the files around it.

    Numbers in steps, such as 10, 20, 30, lack none; numbers that are mostly missing, such as times, count nothing.

    Raises:
        SourceError: two files are one section, or several numbers vary and none counts the sections.
    """
    numbers = [tuple(map(int, _NUMBER.findall(file.stem))) for file in files]
    for one, other, a, b in zip(files, files[1:], numbers, numbers[1:], strict=False):
        if a == b and (a or one.stem == other.stem):
            raise SourceError(f"{one} and {other.name} are the same section; move one of them away")
    varying = [place for place in range(len(numbers[0])) if len({entry[place] for entry in numbers}) > 1]
    counting = [place for place in varying if all(a[place] < b[place] for a, b in pairwise(numbers))]
    if varying and not counting:
        raise SourceError(
            f"{folder} holds images of which no number counts the sections, such as {files[0].name}, {files[1].name}; "
            "if they are tiles or channels, put each into a folder of its own, else rename them 1, 2, 3, .."
        )
    gaps = []
    for place in counting:
        values = [entry[place] for entry in numbers]
        step = gcd(*(b - a for a, b in pairwise(values)))
        if (values[-1] - values[0]) // step < 2 * len(files):
            pairs = zip(files, files[1:], values, values[1:], strict=False)
            gaps += [(place, number, one, other) for one, other, a, b in pairs for number in range(a + step, b, step)]
    return gaps


def _number(path: Path, place: int) -> int:
    return int(_NUMBER.findall(path.stem)[place])


def _name(path: Path, place: int, number: int) -> str:
    """The name of a file with another number at a place."""
    parts = re.split("([0-9]+)", path.stem)
    parts[2 * place + 1] = str(number).zfill(len(parts[2 * place + 1]))
    return "".join(parts)


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """Return a sort key that orders digits by value: section 9 before section 10."""
    parts = re.split("([0-9]+)", path.name)
    return [(0, int(part)) if _NUMBER.fullmatch(part) else (1, part) for part in parts if part]


def _read_image(path: Path, values: Values) -> NDArray[Any]:
    if path.suffix.lower() in TIFF:
        stack = open_tiff(path, DEFAULT_OPTIONS, values)
        if stack.shape[0] != 1:
            raise SourceError(
                f"{path} holds {stack.shape[0]} sections, in a folder of one section a file; name the file"
            )
        section: NDArray[Any] = stack.read(0, 1)[0]
        return section
    return read_picture(path, values)
