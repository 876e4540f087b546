"""Law 8: each refusal is one line that names the value and the way out, before torch or Dask is loaded."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import torch
import zarr
from click.testing import CliRunner

from volseg.cli.main import main
from volseg.testing.factories import VOXEL_NM, blobs, make_volume, read_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from click.testing import Result

    Refused: TypeAlias = Callable[..., tuple[int, str]]

COMMANDS = """
import json, os, sys, traceback
# Once, and not anew for each command.
import volseg.cli.evaluate, volseg.cli.predict, volseg.cli.train, volseg.prediction.run, volseg.evaluation.evaluate
from volseg.cli.main import main

def run(arguments, folder, files):
    os.chdir(folder)
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    try:
        main(arguments, prog_name="volseg")
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
    return 70

for line in sys.stdin:
    child = os.fork()
    if not child:
        code = run(*json.loads(line))
        loaded = [name for name in ("torch", "distributed", "dask") if name in sys.modules]
        if loaded:
            print("AssertionError:", loaded, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""A process that has read the command line's modules, and forks one more for each command."""


@pytest.fixture(scope="module")
def commands() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", COMMANDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.stdin.close()  # type: ignore[union-attr]


@pytest.fixture
def refused(commands: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory) -> Refused:
    """Exit code and error line of a command that must load neither torch nor Dask."""

    def call(*arguments: str) -> tuple[int, str]:
        said = [tmp_path_factory.mktemp("said") / name for name in ("stdout", "stderr")]
        assert commands.stdin is not None
        assert commands.stdout is not None
        commands.stdin.write(json.dumps([arguments, str(Path.cwd()), [str(file) for file in said]]) + "\n")
        commands.stdin.flush()
        code = int(commands.stdout.readline())
        out, error = (file.read_text() for file in said)
        assert "AssertionError" not in error, error
        assert "Traceback" not in error, error
        assert not out
        lines = [line for line in error.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1, error
        return code, lines[0]

    return call


@pytest.fixture
def here(tmp_path: Path, small_model: Path) -> Path:
    """A folder with a volume, a model, and files that are neither."""
    make_volume(tmp_path / "raw.zarr", (4, 64, 64), chunk=(2, 32, 32))
    (tmp_path / "model.safetensors").write_bytes(small_model.read_bytes())
    (tmp_path / "cut.safetensors").write_bytes(small_model.read_bytes()[:5000])
    changed = bytearray(small_model.read_bytes())
    changed[-9] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(bytes(changed))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "pickled.pt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "note.txt").write_text("no volume")
    zarr.create_array(tmp_path / "flat.zarr", shape=(64, 64), chunks=(64, 64), dtype="uint8")
    zarr.create_array(tmp_path / "rgb.zarr", shape=(3, 4, 64, 64), chunks=(3, 4, 64, 64), dtype="uint8")
    make_volume(tmp_path / "there.zarr", (2, 32, 32))
    make_volume(tmp_path / "coarse.zarr", (2, 32, 32), voxel_nm=(30.0, 12.0, 12.0))
    tifffile.imwrite(tmp_path / "stack.tif", blobs((4, 64, 64)), photometric="minisblack")
    return tmp_path


PREDICT: list[tuple[list[str], int, str]] = [
    (["none.zarr", "out.zarr"], 1, "source .*none.zarr does not exist; check the path"),
    (
        ["folder", "out.zarr"],
        1,
        "folder is not a Zarr, and holds no .tif, .* or .bmp section; check the path",
    ),
    (["stack.tif", "out.zarr", "--missing", "blank"], 2, "--missing does not apply to stack.tif"),
    (["note.txt", "out.zarr"], 1, "note.txt is neither a Zarr, an HDF5 file .* nor a folder"),
    (["flat.zarr", "out.zarr"], 1, r"shape \(64, 64\), which is not one volume of axes \(z, y, x\)"),
    (["rgb.zarr", "out.zarr"], 1, r"holds 3 channels in shape \(3, 4, 64, 64\); .*--channel"),
    (["raw.zarr", "there.zarr"], 1, "there.zarr exists already; give --resume to finish it, --overwrite"),
    (["raw.zarr", "there.zarr", "--resume"], 1, "there.zarr holds no run of volseg to resume"),
    (["raw.zarr", "out.zarr", "--resume", "--overwrite"], 2, "--resume and --overwrite"),
    (["raw.zarr", "raw.zarr", "--overwrite"], 1, "target .*raw.zarr .* source .*raw.zarr(/0)?; choose"),
    (["raw.zarr/0", "raw.zarr", "--overwrite"], 1, "target .*raw.zarr .* source .*raw.zarr(/0)?; choose"),
    (["file://raw.zarr", "raw.zarr", "--overwrite"], 1, "target .*raw.zarr .* source .*raw.zarr(/0)?; choose"),
    (["raw.zarr", "folder", "--overwrite"], 1, "folder is not a Zarr, so --overwrite"),
    (["raw.zarr", "out.zarr", "--cluster", "serial", "--workers", "3"], 2, "--workers 3 .*--cluster local"),
    (["raw.zarr", "out.zarr", "--halo", "2,16,16"], 2, "does not look along; use --halo 0,16,16"),
    (["raw.zarr", "raw.zarr/0/map.zarr"], 1, "target .*map.zarr .* source .*raw.zarr(/0)?; choose"),
    (["raw.zarr", "stack.tif"], 1, "stack.tif exists already"),
    (["raw.zarr", "stack.tif/out.zarr"], 1, "cannot be written"),
    (["raw.zarr", "https://host/out.zarr"], 1, "target https://host/out.zarr is a URL; write to a local"),
    (["raw.zarr", "out.zarr", "--halo", "0,17,16"], 2, r"halo \(0, 17, 16\) .*use --halo 0,20,16"),
    (["raw.zarr", "out.zarr", "--halo", "wide"], 2, "--halo 'wide' is not three whole numbers; .*or auto, or exact"),
    (["raw.zarr", "out.zarr", "--halo=-1,0,0"], 2, "a halo cannot be negative"),
    (["raw.zarr", "out.zarr", "--block", "2,30,32"], 2, r"block \(2, 30, 32\) .*use --block 2,32,32"),
    (["raw.zarr", "out.zarr", "--block", "2,48,32", "--shard", "2,32,32"], 2, "is not made of whole shards"),
    (["raw.zarr", "out.zarr", "--block", "2,32,32", "--chunk", "2,20,32"], 2, "chunk .* does not divide the shard"),
    (["raw.zarr", "out.zarr", "--block", "2,32"], 2, "--block '2,32' is not three whole numbers; write it as Z,Y,X"),
    (["raw.zarr", "out.zarr", "--roi", "0:4,0:64,0:65"], 2, r"0:65 .* volume of shape \(4, 64, 64\)"),
    (["raw.zarr", "out.zarr", "--roi", "::,:,:"], 2, "--roi '::,:,:' is not a region"),
    (["raw.zarr", "out.zarr", "--roi", "0:4"], 2, "--roi '0:4' is not a region"),
    (["raw.zarr", "out.zarr", "--workers", "0"], 2, "Invalid value for '--workers'"),
    (["raw.zarr", "out.zarr", "--precision", "int8"], 2, "'int8' is not one of"),
    (["raw.zarr", "out.zarr", "--cluster", "slurm"], 2, "the memory of a job is not stated; give --memory 32GB"),
    (["raw.zarr", "out.zarr", "--halo-tolerance", "99.9"], 2, "'99.9' is not two numbers; write PERCENT,LEVELS"),
    (["raw.zarr", "out.zarr", "--halo-tolerance", "0,8"], 2, "tolerance 0,8 .*such as 99.9,8"),
    (["raw.zarr", "out.zarr", "--halo-tolerance", "99,8", "--halo", "exact"], 2, "--halo-tolerance .*--halo auto"),
    (["raw.zarr", "out.zarr", "--classes", "cell"], 2, "has no class 'cell'; choose from membrane"),
    (["raw.zarr", "out.zarr", "--classes", "membrane,membrane"], 2, "--classes membrane,membrane"),
    (["raw.zarr", "out.zarr", "--uncertainty"], 2, "--uncertainty .*--orientations flips or all"),
    (["raw.zarr", "out.zarr", "--model", "model.safetensors"], 2, "--model .*model.safetensors .*more than once"),
    (["raw.zarr", "out.zarr", "--orientations", "six"], 2, "'six' is not one of"),
    (["raw.zarr", "out.zarr", "--scale-level", "1"], 2, "raw.zarr has no level 1; it has levels 0 to 0"),
    (["raw.zarr/0", "out.zarr", "--scale-level", "1"], 2, "no level 1; .*OME-Zarr group"),
    (["coarse.zarr", "out.zarr"], 1, "30 x 12 x 12 nm, the model was trained on 30 x 6 x 6 nm .*--ignore-voxel-size"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), PREDICT, ids=[" ".join(row[0]) for row in PREDICT])
def test_predict_refuses_in_one_line(
    refused: Refused, here: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(here)
    got, line = refused("predict", *arguments, "--model", "model.safetensors")
    assert got == code
    assert re.search(message, line), line
    assert not (here / "out.zarr").exists()
    np.testing.assert_array_equal(read_volume(here / "raw.zarr"), blobs((4, 64, 64)))


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [
        ("fusionnet-mars", 2, "'fusionnet-mars' is neither a file nor a packaged model"),
        ("folder", 2, "'folder' is neither a file nor a packaged model"),
        ("cut.safetensors", 1, "cut.safetensors is not a complete .safetensors model file"),
        ("changed.safetensors", 1, "has changed since it was written"),
        ("pickled.pt", 1, "pickled.pt is a pickled PyTorch file, which could run code and is never loaded"),
    ],
)
def test_invalid_models_are_refused_in_one_line(
    refused: Refused, here: Path, monkeypatch: pytest.MonkeyPatch, model: str, code: int, message: str
) -> None:
    monkeypatch.chdir(here)
    exit_code, line = refused("predict", "raw.zarr", "out.zarr", "--model", model)
    assert (exit_code, message in line) == (code, True), line


@pytest.fixture
def read_only(tmp_path: Path, here: Path) -> Path:
    """A folder on a read-only mount: file modes would not stop root."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], capture_output=True, check=False)
    if mount.returncode:
        folder.chmod(0o500)
        if (folder / "x").parent.stat().st_uid == 0:
            pytest.skip("this user can neither mount nor be kept from writing")
    return folder


def test_a_target_on_a_read_only_mount_is_refused(refused: Refused, here: Path, read_only: Path) -> None:
    try:
        model = str(here / "model.safetensors")
        code, line = refused("predict", str(here / "raw.zarr"), str(read_only / "a" / "out.zarr"), "--model", model)
    finally:
        subprocess.run(["umount", str(read_only)], capture_output=True, check=False)
    assert code == 1
    assert f"cannot be written: {read_only} is read-only; choose another folder" in line


def test_an_unreachable_scheduler_is_refused_within_seconds(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("volseg.cluster.joined"), "CONNECT_SECONDS", 1)
    started = time.monotonic()
    done = predicted(here / "raw.zarr", here / "out.zarr", "--cluster", "tcp://127.0.0.1:9")
    assert done.exit_code == 1
    assert "no scheduler answers at tcp://127.0.0.1:9 within 1 s" in done.stderr
    assert time.monotonic() - started < 20
    assert not (here / "out.zarr").exists()


def predicted(raw: Path, target: Path, *more: str) -> Result:
    """Result of a prediction by the command line; other errors than volseg's own are raised."""
    command = ["predict", str(raw), str(target), "--model", str(target.parent / "model.safetensors"), *more]
    return CliRunner().invoke(main, command, catch_exceptions=False)


def test_nan_in_the_midst_of_tissue_is_refused_before_the_first_block(here: Path) -> None:
    voxels = blobs((4, 64, 64), dtype="float32")
    voxels[2, 5, 5] = np.nan
    make_volume(here / "nan.zarr", voxels.shape, voxels=voxels, chunk=(1, 32, 32))
    more = ["--block", "1,32,32", "--halo", "0,4,4", "--cluster", "serial"]
    done = predicted(here / "nan.zarr", here / "out.zarr", *more)
    assert done.exit_code == 1
    assert re.search(r"nan.zarr/0 holds NaN or infinity in the midst of tissue, .* \(2, 5, 5\).*--mask", done.stderr)
    assert not (here / "out.zarr").exists()


OTHERS: list[tuple[list[str], int, str]] = [
    (["convert", "none.tif", "v.zarr", "--voxel-size", "1,1,1"], 1, "none.tif does not exist"),
    (["convert", "stack.tif", "v.zarr"], 2, "stack.tif states no voxel size; give --voxel-size Z,Y,X"),
    (["convert", "stack.tif", "v.zarr", "--voxel-size", "1,1"], 2, "write nanometres as Z,Y,X"),
    (["convert", "stack.tif", "v.zarr", "--voxel-size", "1,0,1"], 2, "each size must be 0.1 nm at least"),
    (["convert", "stack.tif", "there.zarr", "--voxel-size", "1,1,1"], 1, "there.zarr exists already"),
    (["convert", "stack.tif", "folder", "--voxel-size", "1,1,1", "--overwrite"], 1, "is not a Zarr, so --overwrite"),
    (["evaluate", "raw.zarr", "none.tif"], 1, "does not exist"),
    (["evaluate", "raw.zarr", "there.zarr"], 1, r"prediction .* is \(4, 64, 64\), truth .* is \(2, 32, 32\)"),
    (["evaluate", "raw.zarr", "raw.zarr"], 2, "nothing to score; check .*membrane"),
    (["evaluate", "raw.zarr", "stack.tif", "--threshold", "2"], 2, "threshold 2.0 is not between 0 and 1"),
    (["evaluate", "raw.zarr", "stack.tif", "--channel", "7"], 2, "raw.zarr.* no channel 7; choose from 0"),
    (["evaluate", "stack.tif", "stack.tif", "--channel", "7"], 2, "stack.tif .*--channel"),
    (["evaluate", "raw.zarr", "stack.tif", "--kind", "instances", "--pixels-only"], 2, "--pixels-only .*ids"),
    (["evaluate", "raw.zarr", "stack.tif", "--roi", "0:9,:,:"], 2, r"0:9.*\(4, 64, 64\)"),
    (["train", "none.toml"], 2, "cannot read run file none.toml"),
    (["models", "vgg"], 2, "'vgg' is neither a file nor a packaged model"),
    (["view", "none.zarr"], 1, "none.zarr"),
    (["fly"], 2, "there is no command 'fly'; choose from convert"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), OTHERS, ids=[" ".join(row[0]) for row in OTHERS])
def test_the_other_commands_refuse_in_one_line(
    refused: Refused, here: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(here)
    got, line = refused(*arguments)
    assert got == code
    assert re.search(message, line), line


RUN = '[data]\nraw = "raw.zarr"\nlabels = "stack.tif"\ntrain = [0, 2]\n[output]\nfolder = "o"\n'
END = 'folder = "o"\n'
RUN_FILES: list[tuple[str, str, int, str]] = [
    (END, END + "[fit]\nstep = 3\n", 2, "unknown key 'fit.step' .did you mean 'steps'..; choose from steps, minutes"),
    (END, END + "[fit]\nsteps = 0\n", 2, r"fit.steps: .*greater than 0 \(given: 0\)"),
    ('raw = "raw.zarr"\n', "", 2, "data.raw: Field required"),
    ("raw =", "row =", 2, "unknown key 'data.row'; choose from raw"),
    ("[data]\nraw =", "[[data]]\nrow =", 2, "unknown key 'data.0.row'; choose from raw"),
    (END, END + "[fit\n", 2, "is not TOML"),
    ("[0, 2]", "[3, 9]", 2, r"data.train \[3, 9\] .*4 sections"),
    ("train =", "validation = [1, 3]\ntrain =", 2, "data.train .*data.validation .*share sections of"),
    ("stack.tif", "flat.zarr", 1, "not one volume"),
    ("stack.tif", "there.zarr", 2, r"raw.zarr is \(4, 64, 64\), .*there.zarr .*\(2, 32, 32\)"),
    ("train =", 'membrane = "nonzero"\ntrain =', 2, "100% .*data.membrane"),
    ("train =", "ignore = 1\ntrain =", 2, "stack.tif .*data.ignore = 1"),
    (END, END + '[optimizer]\nname = "lamb"\n', 2, "optimizer.name: .*'adamw', 'adam' or 'sgd' .*'lamb'"),
    (END, END + '[loss]\nname = "hinge"\n', 2, "loss.name: .*'hinge'.*balanced, cross_entropy, dice"),
    (
        END,
        END + '[target]\nkind = "affinities"\n[validation]\nscore = "v_rand"\n',
        2,
        "validation.score v_rand .*use f1",
    ),
    ('"o"', '"stack.tif"', 1, "cannot write into stack.tif: File exists; choose another"),
]


@pytest.mark.parametrize(("text", "replacement", "code", "message"), RUN_FILES, ids=[row[3] for row in RUN_FILES])
def test_invalid_run_files_are_refused_in_one_line(
    refused: Refused, here: Path, monkeypatch: pytest.MonkeyPatch, text: str, replacement: str, code: int, message: str
) -> None:
    monkeypatch.chdir(here)
    assert text in RUN
    write_labels(here, one_class="nonzero" in replacement or "ignore" in replacement)
    (here / "run.toml").write_text(RUN.replace(text, replacement))
    exit_code, line = refused("train", "run.toml")
    assert re.search(message, line), line
    assert exit_code == code
    assert not (here / "o").exists()


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ("[patches]\nsize = 30\n", r"patches.size \[1, 30, 30\] .*stride .*; use \[1, 32, 32\]"),
        ("[patches]\nsize = [2, 32, 32]\n", r"patches.size \[2, 32, 32\] .*; use \[1, 32, 32\]"),
        ('[network]\nname = "vgg"\n', "'vgg'.*choose from deconvnet, .*, unet"),
        ("[network]\narguments = { breadth = 3 }\n", "'fusionnet' does not take these arguments: .*breadth"),
        ('[network]\nstart = "none.safetensors"\n', "'none.safetensors' is neither a file nor a packaged model"),
        ('[fit]\nprecision = "float16"\ndevice = "cpu"\n', "float16 needs a CUDA device"),
    ],
)
def test_networks_that_cannot_be_trained_are_refused_in_one_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, tables: str, message: str
) -> None:
    """These refusals load torch, but take no step; the corrected run file can start at once."""
    monkeypatch.chdir(here)
    write_labels(here)
    (here / "run.toml").write_text(RUN + tables)
    done = CliRunner().invoke(main, ["train", "run.toml"])
    (line,) = done.stderr.strip().splitlines()
    assert re.search(message, line), line
    assert done.exit_code == 2
    assert not any((here / "o").iterdir())


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("fit.steps", "--set fit.steps is not KEY=VALUE, such as fit.steps=500"),
        ("fit.stops=3", "unknown key 'fit.stops' .did you mean 'steps'..; choose from steps"),
        ("fit.steps.more=3", "'more' is below a value that is not a table"),
        ("fit.steps=many", r"fit.steps: .*valid integer.* \(given: 'many'\)"),
    ],
)
def test_invalid_overrides_are_refused_in_one_line(
    refused: Refused, here: Path, monkeypatch: pytest.MonkeyPatch, assignment: str, message: str
) -> None:
    monkeypatch.chdir(here)
    (here / "run.toml").write_text(RUN + "[fit]\nsteps = 3\n")
    code, line = refused("train", "run.toml", "--set", assignment)
    assert re.search(message, line), line
    assert code == 2


def write_labels(here: Path, *, one_class: bool = False) -> None:
    labels = np.ones((4, 64, 64), np.uint8)
    if not one_class:
        labels[:, ::8] = 0
    tifffile.imwrite(here / "stack.tif", labels, photometric="minisblack")


def test_the_fixture_itself_is_not_refused(here: Path) -> None:
    """Otherwise each refusal above could have the same cause."""
    done = predicted(here / "raw.zarr", here / "out.zarr", "--cluster", "serial")
    assert done.exit_code == 0, done.stderr
    assert VOXEL_NM == (30.0, 6.0, 6.0)
