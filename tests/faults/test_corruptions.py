"""A short form of the campaign of corruptions."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.corruptions import Corrupted, judge
from tests.faults.sound import (
    accuse_nothing,
    copied,
    moved,
    of_other_times,
    read_only,
    with_attributes,
    with_levels,
)
from tests.laws.corrupting import flip_shard, replace_in_place, shard_that_is_a_folder, take_metadata_of_another_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.sound import Run


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """A run with a mask, a region, uncertainty, empty blocks, and several shards a block; any user may read it."""
    with tempfile.TemporaryDirectory(prefix="volseg-faults-") as folder:
        yield Corrupted(Path(folder), ("all",)).runs["all"]


@pytest.mark.parametrize(
    "corrupt", [shard_that_is_a_folder, flip_shard, replace_in_place, take_metadata_of_another_map]
)
def test_what_changes_a_map_is_found_and_repaired_or_refused(
    run: Run, corrupt: Callable[[Path, random.Random, Path], None]
) -> None:
    target = shutil.copytree(run.whole, run.whole.parents[1] / corrupt.__name__ / "t.zarr")
    corrupt(target, random.Random(3), run.other)
    assert judge(run, target, corrupt.__name__, deep=False)["changes that are seen, found"] == 1


def test_a_file_in_the_place_of_a_folder_of_shards_is_repaired(run: Run) -> None:
    target = shutil.copytree(run.whole, run.whole.parents[1] / "file" / "t.zarr")
    folder = next(path for path in sorted((target / "0" / "c" / "0").iterdir()) if path.is_dir())
    shutil.rmtree(folder)
    folder.write_bytes(b"")
    assert judge(run, target, "a file", deep=True)["repairs that restored equal bytes"] == 1


@pytest.mark.parametrize("variant", [moved, copied, of_other_times, with_levels, with_attributes, read_only])
def test_what_is_sound_is_not_accused(run: Run, variant: Callable[[Run, Path, random.Random], Path]) -> None:
    target = shutil.copytree(run.whole, run.whole.parents[1] / f"sound {variant.__name__}" / "t.zarr")
    found = variant(run, target, random.Random(0))
    accuse_nothing(found, variant.__name__, is_owned=variant is not read_only)
