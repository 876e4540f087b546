"""Ways to corrupt a finished target; each takes it, a source of chance, and a map of another model."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from tests.laws.fuzzing import replace_value
from volseg.storage.mark_records import RECORD_BYTES

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from pathlib import Path


def tree(target: Path) -> dict[str, bytes]:
    """All files but what each start adds to the journal: segments, and what it took."""
    files = (path for path in sorted(target.rglob("*")) if path.is_file() and path.suffix != ".marks")
    files = (path for path in files if not path.name.startswith("usage-"))
    return {str(path.relative_to(target)): path.read_bytes() for path in files}


def shards(target: Path) -> list[Path]:
    return [path for path in sorted(target.glob("**/c/**/*")) if path.is_file()]


def segments(target: Path) -> list[Path]:
    return sorted((target / "0" / ".volseg").glob("*.marks"))


def metadata(target: Path) -> list[Path]:
    return [path for path in sorted(target.rglob("zarr.json")) if "labels" not in path.parts]


def constants(target: Path) -> list[Path]:
    return sorted((target / "0" / ".volseg").glob("*-*.[nb]*"))


def flip(path: Path, rng: random.Random, first: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(first, len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def edit(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Places of all numbers and texts of a JSON value: what holds each, and its key there."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, dict | list):
            yield from leaves(item)
        else:
            yield value, key


def change_leaf(document: Any, rng: random.Random) -> None:
    holder, key = rng.choice(list(leaves(document)))
    value = holder[key] or 0
    holder[key] = value + "x" if isinstance(value, str) else not value if isinstance(value, bool) else value + 1


def delete_shard(target: Path, rng: random.Random, other: Path) -> None:
    rng.choice(shards(target)).unlink()


def flip_shard(target: Path, rng: random.Random, other: Path) -> None:
    flip(rng.choice(shards(target)), rng)


def truncate_shard(target: Path, rng: random.Random, other: Path) -> None:
    path = rng.choice(shards(target))
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def append_to_shard(target: Path, rng: random.Random, other: Path) -> None:
    path = rng.choice(shards(target))
    path.write_bytes(path.read_bytes() + b"\0" * rng.randrange(1, 9))


def swap_shards(target: Path, rng: random.Random, other: Path) -> None:
    one, two = rng.sample(shards(target), 2)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def take_shard_of_another_map(target: Path, rng: random.Random, other: Path) -> None:
    names = sorted({p.relative_to(target) for p in shards(target)} & {p.relative_to(other) for p in shards(other)})
    shutil.copy(other / (name := rng.choice(names)), target / name)


def remove_section(target: Path, rng: random.Random, other: Path) -> None:
    shutil.rmtree(rng.choice(sorted((target / "0" / "c").iterdir())))


def add_stale_shard(target: Path, rng: random.Random, other: Path) -> None:
    lacking = sorted(
        {path.relative_to(other) for path in shards(other)} - {p.relative_to(target) for p in shards(target)}
    )
    if not lacking:
        take_shard_of_another_map(target, rng, other)
        return
    name = rng.choice(lacking)
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(other / name, target / name)


def shard_that_is_a_folder(target: Path, rng: random.Random, other: Path) -> None:
    path = rng.choice(shards(target))
    path.unlink()
    path.mkdir()


def flip_journal(target: Path, rng: random.Random, other: Path) -> None:
    segment = rng.choice(segments(target))
    flip(segment, rng, first=RECORD_BYTES)


def cut_journal(target: Path, rng: random.Random, other: Path) -> None:
    segment = rng.choice(segments(target))
    content = segment.read_bytes()
    start = rng.randrange(RECORD_BYTES, len(content))
    segment.write_bytes(content[:start] + content[start + rng.choice([1, 72, len(content)]) :])


def delete_journal(target: Path, rng: random.Random, other: Path) -> None:
    segment = rng.choice(segments(target))
    segment.unlink()


def edit_record(target: Path, rng: random.Random, other: Path) -> None:
    edit(target / "zarr.json", lambda document: change_leaf(document["attributes"]["volseg"], rng))


def edit_array(target: Path, rng: random.Random, other: Path) -> None:
    edit(target / "0" / "zarr.json", lambda document: change_leaf(document, rng))


def edit_place(target: Path, rng: random.Random, other: Path) -> None:
    def change(document: Any) -> None:
        multiscale = document["attributes"]["ome"]["multiscales"][0]
        change_leaf({"axes": multiscale["axes"], "datasets": multiscale["datasets"]}, rng)

    edit(target / "zarr.json", change)


def delete_metadata(target: Path, rng: random.Random, other: Path) -> None:
    (target / rng.choice(["0/zarr.json", "zarr.json"])).unlink()


def damage_constants(target: Path, rng: random.Random, other: Path) -> None:
    (path,) = (target / "0" / ".volseg").glob(rng.choice(["statistics-*.npy", "chunks-*.bin"]))
    path.write_bytes(path.read_bytes()[:-1]) if rng.random() < 0.5 else path.unlink()


def lose_all(target: Path, rng: random.Random, other: Path) -> None:
    shutil.rmtree(target / rng.choice(["0/c", "0/.volseg"]))


def empty_shard(target: Path, rng: random.Random, other: Path) -> None:
    rng.choice(shards(target)).write_bytes(b"")


def remove_row(target: Path, rng: random.Random, other: Path) -> None:
    shutil.rmtree(rng.choice(shards(target)).parent)


def swap_rows(target: Path, rng: random.Random, other: Path) -> None:
    rows = sorted({path.parent for path in shards(target / "0")})
    one, two = rng.sample(rows, 2)
    one.rename(target / "aside")
    two.rename(one)
    (target / "aside").rename(two)


def flip_any_mark(target: Path, rng: random.Random, other: Path) -> None:
    flip(rng.choice(segments(target)), rng)


def empty_journal(target: Path, rng: random.Random, other: Path) -> None:
    rng.choice(segments(target)).write_bytes(b"")


def swap_segments(target: Path, rng: random.Random, other: Path) -> None:
    one, two = rng.sample([*segments(target), *segments(other)], 2)
    first, second = one.read_bytes(), two.read_bytes()
    if one.is_relative_to(target):
        one.write_bytes(second)
    if two.is_relative_to(target):
        two.write_bytes(first)


def append_to_journal(target: Path, rng: random.Random, other: Path) -> None:
    segment = rng.choice(segments(target))
    content = segment.read_bytes()
    more = rng.choice([content, rng.randbytes(100), b"\0" * RECORD_BYTES, rng.choice(segments(other)).read_bytes()])
    segment.write_bytes(content + more)


def flip_constants(target: Path, rng: random.Random, other: Path) -> None:
    flip(rng.choice(constants(target)), rng)


def empty_constants(target: Path, rng: random.Random, other: Path) -> None:
    rng.choice(constants(target)).write_bytes(b"")


def flip_metadata(target: Path, rng: random.Random, other: Path) -> None:
    flip(rng.choice(metadata(target)), rng)


def cut_metadata(target: Path, rng: random.Random, other: Path) -> None:
    path = rng.choice(metadata(target))
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def take_metadata_of_another_map(target: Path, rng: random.Random, other: Path) -> None:
    theirs = {path: (other / path.relative_to(target)).read_bytes() for path in sorted(metadata(target))}
    path = rng.choice([path for path, content in theirs.items() if content != path.read_bytes()])
    path.write_bytes(theirs[path])


def replace_in_metadata(target: Path, rng: random.Random, other: Path) -> None:
    edit(rng.choice(metadata(target)), lambda document: replace_value(document, rng))


def replace_in_array(target: Path, rng: random.Random, other: Path) -> None:
    edit(target / "0" / "zarr.json", lambda document: replace_value(document, rng))


def replace_in_record(target: Path, rng: random.Random, other: Path) -> None:
    edit(target / "zarr.json", lambda document: replace_value(document["attributes"]["volseg"], rng))


def replace_in_place(target: Path, rng: random.Random, other: Path) -> None:
    edit(target / "zarr.json", lambda document: replace_value(document["attributes"]["ome"], rng))


def write_metadata_otherwise(target: Path, rng: random.Random, other: Path) -> None:
    path = rng.choice(metadata(target))
    path.write_text(
        json.dumps(json.loads(path.read_text()), indent=rng.choice((None, 1)), sort_keys=rng.random() < 0.5)
    )


CORRUPTIONS = [
    delete_shard, flip_shard, truncate_shard, append_to_shard, swap_shards, take_shard_of_another_map, remove_section,
    add_stale_shard, shard_that_is_a_folder, flip_journal, cut_journal, delete_journal, edit_record, edit_array,
    edit_place, delete_metadata, damage_constants, lose_all,
]  # fmt: skip
MORE = [
    empty_shard, remove_row, swap_rows, flip_any_mark, empty_journal, swap_segments, append_to_journal, flip_constants,
    empty_constants, flip_metadata, cut_metadata, take_metadata_of_another_map, replace_in_metadata, replace_in_array,
    replace_in_record, replace_in_place, write_metadata_otherwise,
]  # fmt: skip
"""Some of these may change nothing that anyone sees."""
