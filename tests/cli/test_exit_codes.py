"""Exit code 2 for every wrong use of options, by whichever check; 1 for inputs and outputs that cannot be used."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import torch
from click.testing import CliRunner

import volseg.errors
from volseg.cli.main import main
from volseg.errors import VolsegError
from volseg.testing.factories import make_model, make_volume

if TYPE_CHECKING:
    from pathlib import Path

PREDICT = "predict raw.zarr out.zarr --model model.safetensors"
TRAIN = "train run.toml --set"
EVALUATE = "evaluate map.zarr labels.tif"
IMPORT = "models import w.pt --network unet --voxel-size 30,6,6 --output out.safetensors"

WRONG_USE = [
    f"{PREDICT} --resume --overwrite",
    f"{PREDICT} --calibrate",
    f"{PREDICT} --classes glia",
    f"{PREDICT} --classes membrane,membrane",
    f"{PREDICT} --scale-level 3",
    f"{PREDICT} --scale-level -1",
    f"{PREDICT} --workers 2 --cluster serial",
    f"{PREDICT} --workers 0",
    f"{PREDICT} --cluster nowhere",
    f"{PREDICT} --dry-run --cluster nowhere",
    f"{PREDICT} --dry-run --cluster cluster.toml",
    f"{PREDICT} --cluster slurm",
    f"{PREDICT} --queue gpu",
    f"{PREDICT} --cluster pbs --memory 2GB --adapt 4",
    f"{PREDICT} --cluster lsf --memory 2GB --walltime 4",
    "cluster check nowhere",
    "cluster check local --write s3://bucket/map.zarr",
    f"{PREDICT} --dry-run --cluster tcp://head",
    f"{PREDICT} --dry-run --json --cluster tpc://head:8786",
    f"{PREDICT} --halo exact --halo-tolerance 99,8",
    f"{PREDICT} --halo-tolerance 101,8",
    f"{PREDICT} --halo 0,17,16",
    f"{PREDICT} --block 1,30,30",
    f"{PREDICT} --tile 1,30,30",
    f"{PREDICT} --block 2,48,32 --shard 2,32,32",
    f"{PREDICT} --block 2,32,32 --chunk 2,20,32",
    f"{PREDICT} --roi 0:9,:,:",
    f"{PREDICT} --roi 2:2,:,:",
    f"{PREDICT} --mask labels.zarr",
    f"{PREDICT} --mask zero.zarr",
    f"{PREDICT} --uncertainty",
    f"{PREDICT} --precision int8",
    f"{PREDICT} --cluster serial --device cpu --precision float16",
    f"{PREDICT} --model model.safetensors",
    "predict raw.zarr out.zarr --model uneven.safetensors --orientations all",
    "predict raw.zarr out.zarr --model none.safetensors",
    "predict raw.zarr out.zarr --model no-such-name",
    "predict stack.tif out.zarr --model model.safetensors --missing blank",
    "predict raw.zarr out.zarr",
    "convert stack.tif out.zarr",
    "convert stack.tif out.zarr --voxel-size 1,0,1",
    "train none.toml",
    f"{TRAIN} data.raw=coarse.zarr",
    f"{TRAIN} fit.steps",
    f"{TRAIN} fit.stops=3",
    f"{TRAIN} fit.steps=0",
    f"{TRAIN} data.train=[0,9]",
    f"{TRAIN} data.validation=[0,1]",
    f"{TRAIN} data.ignore=255",
    f"{TRAIN} data.membrane=probability --set data.labels=ids.zarr",
    f"{TRAIN} data.membrane=boundaries",
    f"{TRAIN} target.kind=affinities",
    f"{TRAIN} loss.name=hinge",
    f"{TRAIN} network.name=resnet",
    f"{TRAIN} network.arguments={{depth=0}}",
    f"{TRAIN} network.start=none.safetensors",
    f"{TRAIN} patches.size=30",
    f"{TRAIN} patches.size=[2,32,32]",
    f"{TRAIN} fit.precision=float16 --set fit.device=cpu",
    f"{EVALUATE} --channel 7",
    f"{EVALUATE} --threshold 2",
    f"{EVALUATE} --roi 0:9,:,:",
    f"{EVALUATE} --kind skeletons",
    "evaluate labels.tif labels.tif --channel membrane",
    "evaluate ids.zarr labels.tif --kind probability",
    "evaluate floats.zarr labels.tif --kind instances",
    "evaluate ids.zarr labels.tif --pixels-only",
    "models no-such-name",
    "models export no-such-name out.onnx",
    "models export model.safetensors out.xyz",
    f"{IMPORT} --network resnet",
    f"{IMPORT} --argument width=two",
    f"{IMPORT} --argument breadth=2",
    f"{IMPORT} --classes a,a",
    f"{IMPORT} --mean 3",
    f"{IMPORT} --normalization fixed --mean 3",
    f"{IMPORT} --output out.pt",
    "models import none.pt --network unet --voxel-size 30,6,6 --output out.safetensors",
    "view map.zarr --port 70000",
    "view map.zarr --bind ''",
    "demo --steps 0",
    "fly",
]

ERRORS = [
    "predict none.zarr out.zarr --model model.safetensors",
    "predict raw.zarr map.zarr --model model.safetensors",
    "predict raw.zarr map.zarr --model model.safetensors --resume",
    "predict raw.zarr raw.zarr --model model.safetensors --overwrite",
    "predict raw.zarr out.zarr --model w.pt",
    "predict coarse.zarr out.zarr --model model.safetensors",
    "convert none.tif out.zarr --voxel-size 1,1,1",
    "convert stack.tif map.zarr --voxel-size 1,1,1",
    "evaluate none.zarr labels.tif",
    "evaluate coarse.zarr labels.tif",
    f"{TRAIN} data.raw=none.zarr",
    f"{TRAIN} output.folder=stack.tif",
    "view none.zarr",
    "demo .",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, a map, labels, models and a run file; only what a command names is wrong with it."""
    path = tmp_path_factory.mktemp("exit-codes")
    shape = (4, 64, 64)
    labels = np.full(shape, 255, np.uint8)
    labels[:, ::8] = 0
    make_volume(path / "raw.zarr", shape, chunk=(2, 32, 32))
    make_volume(path / "map.zarr", shape)
    make_volume(path / "ids.zarr", shape, voxels=labels.astype(np.uint16))
    make_volume(path / "floats.zarr", shape, voxels=labels / np.float32(255))
    make_volume(path / "labels.zarr", (3, 5, 7))
    make_volume(path / "zero.zarr", shape, voxels=np.zeros(shape, np.uint8))
    make_volume(path / "coarse.zarr", (2, 32, 32), voxel_nm=(30.0, 12.0, 12.0))
    make_model(path / "model.safetensors")
    uneven = {"width": 2, "depth": 1, "padded": True, "kernel": [3, 5], "pool": [1, 2]}
    make_model(path / "uneven.safetensors", "unet", uneven)
    for name, voxels in (("stack", labels), ("labels", labels)):
        tifffile.imwrite(path / f"{name}.tif", voxels, photometric="minisblack")
    torch.save({"weight": torch.zeros(1)}, path / "w.pt")
    (path / "run.toml").write_text(
        '[data]\nraw = "raw.zarr"\nlabels = "labels.tif"\ntrain = [0, 2]\n[network]\narguments = { width = 2 }\n'
        '[output]\nfolder = "o"\n'
    )
    return path


@pytest.mark.parametrize(
    ("command", "code"), [*((command, 2) for command in WRONG_USE), *((command, 1) for command in ERRORS)]
)
def test_the_exit_code_tells_wrong_use_from_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, code: int
) -> None:
    monkeypatch.chdir(folder)
    words = [word if word != "''" else "" for word in command.split(" ")]
    done = CliRunner().invoke(main, words)
    assert isinstance(done.exception, SystemExit), done.exception
    assert (done.exit_code, done.stderr.count("Error: ")) == (code, 1), done.stderr
    assert not (folder / "out.zarr").exists()


def test_the_tree_in_the_docstring_lists_every_error_with_its_exit_code() -> None:
    drawn = dict(re.findall(r"(\w+Error) +(\d) ", volseg.errors.__doc__ or ""))
    defined = {
        name: str(kind.exit_code)
        for name, kind in vars(volseg.errors).items()
        if isinstance(kind, type) and issubclass(kind, VolsegError)
    }
    assert drawn == defined
