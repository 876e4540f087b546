"""Hostile input: files of all kinds in one folder, command lines over them, and damage that checksums do not show."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

import click
import numpy as np
import tifffile
import torch
from xxhash import xxh3_64_intdigest

import volseg
from tests.laws.fuzzing import damaged, make_targets, replace_value
from volseg.cli.main import main
from volseg.models.model import load_model_file
from volseg.storage.checked_record import checksum
from volseg.storage.mark_records import RECORD_BYTES
from volseg.testing.factories import blobs, make_model, make_volume
from volseg.testing.targets import make_target, noise_record

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

SHAPE = (3, 32, 32)
QUICK = ["--block", "1,16,16", "--halo", "0,8,8", "--tile", "1,16,16", "--precision", "float32", "--device", "cpu",
         "--cluster", "serial"]  # fmt: skip
FAILED = {"block": 3, "kind": "SourceError", "message": "gone", "attempts": 3, "worker": "here, cpu",
          "time": "2026-01-01T00:00:00+00:00", "traceback": "Traceback ..\n"}  # fmt: skip
VALID = {
    "--block": ("1,16,16", "4,16,32"), "--halo": ("auto", "exact", "0,8,8"), "--halo-tolerance": ("99,4",),
    "--classes": ("membrane", "all"), "--tile": ("1,16,16",), "--scale-level": ("0", "1"), "--axes": ("z,y,x", "x,y,z"),
    "--channel": ("0", "membrane"), "--shard": ("1,16,16",), "--chunk": ("1,8,8",), "--roi": (":,:,:", "0:1,:,0:16"),
    "--voxel-size": ("30,6,6",), "--workers": ("2",), "--max-failed": ("0", "5"), "--block-timeout": ("9",),
    "--precision": ("float32", "auto"), "--network": ("fusionnet", "unet"), "--argument": ("width=4", "depth=2"),
    "--mean": ("128",), "--std": ("33",), "--name": ("m",), "--license": ("CC0-1.0",),
    "--ignore": ("7",), "--threshold": ("0.5",), "--set": ("fit.steps=5", "network.arguments.width=8"),
}  # fmt: skip
"""Values of options that may be right."""
WORDS = (
    "", " ", "-", "--", "-1", "0", "1", "nan", "inf", "-inf", "1e308", "1e-320", "9" * 30, "9" * 5000, "0x10", "1_0",
    "1,1", "1,1,1", "0,0,0", "-1,-1,-1", "1,1,1,1", "999999999999,1,1", "99999999999999999999,9,9",
    "nan,nan,nan", "inf,1,1",
    "1e400,1,1", "0:0,0:0,0:0", "3:1,:,:", "-1:,:,:", ":,:,99999999999999999999:", ":", ",,", ",", "a,b,c", "x,y,z,t",
    "z,z,z", "None", "true", "[]", "{}", "a=b", "=", "a=", "a=[" + "[" * 2000, "width=10000000000000000000000",
    "width=-1",
    "depth=1000", "depth=0", "width=nan", "a.b.c=1", "fit=1", "data=[]", "fit.steps=1e400", "fit.steps='x'",
    "." * 20_000,
    "\N{REVERSED SEMICOLON}", "\N{ARABIC-INDIC DIGIT ONE}", "\x1b[31m", "a\nb", "a\tb", "\udcff", "x" * 300, "x" * 5000,
    "%s%n", "{0}", "$HOME", "*", "auto", "all", "membrane,membrane", "99.9,8", "nan,nan", "101,-1",
)  # fmt: skip
NEW = ("new.zarr", "new.safetensors", "a/b/c.zarr", "raw.zarr/new.zarr", "done.zarr/0", "empty", "fifo", "dangling",
       "loop",
       "plain.tif", "n" * 300, "new \N{SNOWMAN}.zarr", "two\nlines.zarr", "done.zarr", "half.zarr",
       "image.zarr")  # fmt: skip
"""Places to write to, all inside the folder."""
MARK_FIELDS = ((0, 1), (1, 1), (2, 2), (4, 4), (8, 8), (16, 8), (24, 4), (28, 4), (32, 16), (48, 16))
"""Where the fields of a mark lie, and their bytes."""
COMMANDS = ("predict", "convert", "pyramid", "evaluate", "status", "verify", "models", "models import", "train")


def make_folder(folder: Path, *, computed: bool = True) -> None:
    """Write valid and strange files of all kinds; the runs are of noise if they are not to be computed."""
    folder.mkdir()
    model = make_model(folder / "net.safetensors")
    make_targets(folder, model)
    make_volume(folder / "raw.zarr", SHAPE, chunk=(1, 16, 16))
    make_volume(folder / "mask.zarr", SHAPE, voxels=np.ones(SHAPE, np.uint8))
    tifffile.imwrite(folder / "labels.tif", (blobs(SHAPE) > 128).astype(np.uint16), photometric="minisblack")
    network = load_model_file(model).network
    torch.save(network.state_dict(), folder / "weights.pt")
    for name in ("done.zarr", "half.zarr"):
        if computed:
            volseg.predict(
                str(folder / "raw.zarr"), str(folder / name), model=str(model), block=(1, 16, 16), halo=(0, 8, 8),
                tile=(1, 16, 16), precision="float32", device="cpu", cluster="serial",
            )  # fmt: skip
        else:
            make_target(folder / name, noise_record(SHAPE, (1, 16, 16)))
    journal = folder / "half.zarr" / "0" / ".volseg"
    (segment,) = journal.glob("*.marks")
    segment.write_bytes(segment.read_bytes()[: -5 * RECORD_BYTES + 11])
    (journal / "failures-0001.jsonl").write_text(f"{json.dumps(FAILED)}\n{json.dumps(FAILED | {'block': 5})}\n")
    make_strange(folder)


def make_strange(folder: Path) -> None:
    """Write what is no file of any format."""
    (folder / "empty").mkdir()
    (folder / "nothing").touch()
    os.mkfifo(folder / "fifo")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    for ending in ("tif", "h5", "safetensors", "toml", "pt", "png"):
        (folder / f"fifo.{ending}").symlink_to("fifo")
        (folder / f"zero.{ending}").symlink_to("/dev/zero")
        with (folder / f"sparse.{ending}").open("wb") as sparse:
            sparse.truncate(100 << 30)
    for name, file in (("sparse.zarr", "sparse.toml"), ("fifo.zarr", "fifo"), ("zero.zarr", "/dev/zero")):
        (folder / name).mkdir()
        (folder / name / "zarr.json").symlink_to(folder / file)
    for name, file in (("fifo-png", "fifo"), ("sparse-png", "sparse.png")):
        (folder / name).mkdir()
        (folder / name / "0.png").symlink_to(folder / file)
    (folder / "odd \N{SNOWMAN}\x1b[31m").mkdir()


def copy_folder(folder: Path, copy: Path) -> Path:
    """Copy the folder; links stay, and large files are linked."""

    def copied(source: str, target: str) -> None:
        with suppress(shutil.SpecialFileError):
            if os.stat(source, follow_symlinks=False).st_blocks == 0 and os.path.getsize(source):  # noqa: PTH116, PTH202
                os.link(source, target)
            else:
                shutil.copyfile(source, target, follow_symlinks=False)

    shutil.copytree(folder, copy, symlinks=True, copy_function=copied, ignore=lambda _, names: {"fifo"} & set(names))
    os.mkfifo(copy / "fifo")
    return copy


def sources(folder: Path) -> list[str]:
    """What can be named as an input: all that is in the folder, and what is not there."""
    found = [path.name for path in sorted(folder.iterdir())]
    inside = [
        "raw.h5:volumes/raw",
        "raw.h5:soft",
        "raw.h5:",
        "raw.h5:../x",
        "raw.zarr/0",
        "done.zarr/0/c",
        "done.zarr/0",
    ]
    urls = ["http://127.0.0.1:1/x.zarr", "http://", "s3://", "file:///etc", "gs://", "http://[::1", "ftp://x/y"]
    return [*found, *inside, *urls, "gone.zarr", "raw.zarr/", "./raw.zarr", "unet", "fusionnet-isbi2012", *WORDS[:40]]


def command_line(folder: Path, rng: random.Random, name: str = "") -> list[str]:
    """A random command with random options; what it reads and writes lies in the folder."""
    name = name or rng.choice(COMMANDS)
    command = _command(name)
    words, inputs = name.split(), sources(folder)
    for parameter in command.params:
        words += _words(parameter, rng, inputs, name)
    if name == "train":
        words.append("--print-config")
    if name == "predict":
        words += ["--dry-run", *([] if rng.random() < 0.5 else QUICK)]
    if name in ("predict", "verify") and "--cluster" not in words:
        words += ["--cluster", "serial"]
    return [word for word in words if "\0" not in word]


def _command(name: str) -> click.Command:
    command: click.Command = main
    for part in name.split() if name != "models" else ("models", "show"):
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), part)
        assert found is not None
        command = found
    return command


def _words(parameter: click.Parameter, rng: random.Random, inputs: list[str], command: str) -> Iterator[str]:
    option = parameter.opts[0]
    if isinstance(parameter, click.Argument):
        writes = option == "target" and command in ("predict", "convert")
        good = ["raw.zarr", "plain.tif", "png"] if command != "models import" else ["weights.pt", "net.safetensors"]
        good = ["run.toml"] if command == "train" else ["done.zarr", "half.zarr"] if option == "target" else good
        yield rng.choice(NEW if writes else good if rng.random() < 0.6 else inputs)
    elif option in ("--print-config", "--dry-run", "--calibrate", "--tls"):
        return
    elif parameter.is_flag:  # type: ignore[attr-defined]
        if rng.random() < 0.15:
            yield option
    elif rng.random() < (0.9 if parameter.required or option == "--model" else 0.12):
        yield from (option, _value(option, parameter, rng, inputs))


def _value(option: str, parameter: click.Parameter, rng: random.Random, inputs: list[str]) -> str:
    if option == "--output":
        return rng.choice(("new.safetensors", *NEW))
    if option == "--cluster":
        return rng.choice(
            ("serial", "nowhere", "tcp://", "tcp://127.0.0.1:99999", "tls://x", "", "tcp://[", "run.toml")
        )
    if option in ("--source", "--mask", "--model"):
        good = {"--source": "raw.zarr", "--mask": "mask.zarr", "--model": "net.safetensors"}[option]
        return good if rng.random() < 0.75 else rng.choice(inputs)
    if isinstance(parameter.type, click.Choice) and rng.random() < 0.8:
        return str(rng.choice(list(parameter.type.choices)))
    return rng.choice(VALID[option] if option in VALID and rng.random() < 0.75 else WORDS)


def damaged_state(file: Path, content: bytes, rng: random.Random) -> bytes:
    """Damage a file of a run; half the time so that its checksums are right."""
    if rng.random() < 0.5:
        return damaged(content, rng) if content else b"x"
    if file.suffix == ".marks":
        return _strange_marks(content, rng)
    if file.suffix == ".json":
        document = json.loads(content)
        record = document["attributes"].get("volseg")
        replace_value(record if record is not None and rng.random() < 0.8 else document, rng)
        if isinstance(record, dict) and isinstance(document.get("attributes"), dict):
            record["checksum"] = checksum({key: value for key, value in record.items() if key != "checksum"})
        return json.dumps(document).encode()
    if file.suffix == ".jsonl":
        lines = [json.loads(line) for line in content.splitlines()]
        replace_value(rng.choice(lines), rng)
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return damaged(content, rng) if content else b"x"


def _strange_marks(content: bytes, rng: random.Random) -> bytes:
    """Change fields of marks, with their checksums."""
    records = [bytearray(content[start : start + RECORD_BYTES]) for start in range(0, len(content), RECORD_BYTES)]
    for record in rng.sample(records, rng.randrange(1, 4)):
        if len(record) == RECORD_BYTES:
            at, size = rng.choice(
                [(0, 1), (1, 1), (2, 2), (4, 4), (8, 8), (16, 8), (24, 4), (28, 4), (32, 16), (48, 16)]
            )
            record[at : at + size] = rng.choice([b"\xff" * size, b"\0" * size, rng.randbytes(size)])
            record[-8:] = xxh3_64_intdigest(bytes(record[:-8])).to_bytes(8, "little")
    return b"".join(records)


def state_files(target: Path) -> list[Path]:
    """Files of a run's target that volseg reads."""
    journal = [file for file in sorted((target / "0" / ".volseg").iterdir()) if file.is_file()]
    return [target / "zarr.json", target / "0" / "zarr.json", *journal]


def state_command(target: str, rng: random.Random) -> list[str]:
    """A command that reads the state of a run."""
    resume = ["predict", "raw.zarr", target, "--model", "net.safetensors", "--resume", *QUICK]
    verify = ["verify", target, "--cluster", "serial"]
    return rng.choice([
        ["status", target], ["status", target, "--json"], ["status", target, "--traceback"], verify,
        [*verify, "--deep", "--json"], resume, [*resume, "--dry-run"], [*resume, "--dry-run", "--json"],
        [*verify, "--repair"], [*verify, "--seams"], [*verify, "--resume"],
        ["evaluate", target, "labels.tif"], ["convert", target, "new.zarr"],
    ])  # fmt: skip


def input_command(name: str, rng: random.Random) -> list[str]:
    """A command that reads a damaged file."""
    if name.endswith(".toml"):
        return ["train", name, "--print-config"]
    if name.endswith(".pt"):
        kind = rng.choice(("fusionnet", "unet"))
        return ["models", "import", name, "--network", kind, "--argument", "width=4", "--argument", "depth=2",
                "--voxel-size", "30,6,6", "--output", "new.safetensors"]  # fmt: skip
    if name.endswith(".safetensors"):
        return rng.choice([
            ["models", name], ["models", name, "--json"],
            ["predict", "raw.zarr", "new.zarr", "--model", name, "--dry-run", *QUICK],
            ["models", "import", name, "--network", "unet", "--voxel-size", "30,6,6", "--output", "new.safetensors"],
        ])  # fmt: skip
    name = f"{name}:volumes/raw" if name.endswith(".h5") else name
    return rng.choice([
        ["predict", name, "new.zarr", "--model", "net.safetensors", "--dry-run", *QUICK],
        ["predict", "raw.zarr", "new.zarr", "--model", "net.safetensors", "--mask", name, "--dry-run", *QUICK],
        ["predict", name, "new.zarr", "--model", "net.safetensors", *QUICK],
        ["predict", name, "new.zarr", "--model", "net.safetensors", "--at-model-size", "source", *QUICK],
        ["convert", name, "new.zarr", "--voxel-size", "30,6,6"], ["convert", name, "new.zarr"],
        ["convert", name, "new.zarr", "--resample", "30,9,9"], ["pyramid", name, "--levels", "1", "--dry-run"],
        ["evaluate", "image.zarr", name], ["evaluate", name, "labels.tif"],
        ["verify", name, "--seams", "--cluster", "serial"],
    ])  # fmt: skip
