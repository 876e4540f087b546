"""`volseg models`: show, import, export."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from volseg.cli.main import main
from volseg.models import model_card_text, packaged_models, read_card
from volseg.models.model import load_model_file
from volseg.testing.factories import make_model, make_volume, read_volume

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net with classes cell and membrane, as `volseg train` writes it."""
    return make_model(tmp_path_factory.mktemp("model") / "own.safetensors", "unet", {"width": 2, "depth": 1})


@pytest.fixture
def weights(model_file: Path, tmp_path: Path) -> Path:
    """Its weights only, with other names."""
    state = load_model_file(model_file).network.state_dict()
    torch.save({f"layers.{n}.{k.rpartition('.')[2]}": v for n, (k, v) in enumerate(state.items())}, tmp_path / "w.pt")
    return tmp_path / "w.pt"


UNET = ["--network", "unet", "--argument", "width=2", "--argument", "depth=1", "--voxel-size", "30,6,6"]


def test_imported_weights_give_the_same_map(model_file: Path, weights: Path, tmp_path: Path) -> None:
    done = run("models", "import", weights, *UNET, "--output", tmp_path / "m.safetensors", "--license", "CC0-1.0")
    assert done.exit_code == 0, done.output
    assert done.stderr == "names differ; 16 tensors matched in order, by shape\n"
    assert "unet, 0.0 M parameters, classes cell, membrane" in done.stdout
    one, other = read_card(model_file), read_card(tmp_path / "m.safetensors")
    assert other.card.footprint == one.card.footprint
    assert (other.card.name, other.card.license) == ("m", "CC0-1.0")
    assert other.card.training == {"imported_from": "w.pt", "assumed": [done.stderr.strip()]}
    source = make_volume(tmp_path / "raw.zarr", (2, 40, 40))
    for name, model in (("a.zarr", model_file), ("b.zarr", tmp_path / "m.safetensors")):
        assert run("predict", source, tmp_path / name, "--model", model, "--cluster", "serial").exit_code == 0
    np.testing.assert_array_equal(read_volume(tmp_path / "a.zarr"), read_volume(tmp_path / "b.zarr"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"classes": ["cell", "membrane"], "activation": "softmax"}),
        (["--classes", "membrane,cell"], {"classes": ["membrane", "cell"], "activation": "softmax"}),
        (["--classes", "a,b", "--activation", "sigmoid"], {"classes": ["a", "b"], "activation": "sigmoid"}),
        (["--normalization", "volume"], {"normalization": {"mode": "volume", "training": [0, 1], "dtype": "uint8"}}),
        (
            ["--normalization", "fixed", "--mean", 900, "--std", 80, "--dtype", "uint16"],
            {"normalization": {"mode": "fixed", "training": [900, 80], "dtype": "uint16"}},
        ),
        (["--name", "mine"], {"name": "mine"}),
    ],
    ids=["default", "classes", "activation", "volume", "fixed", "name"],
)
def test_options_end_up_in_the_card(weights: Path, tmp_path: Path, words: list[str], expected: dict[str, Any]) -> None:
    done = run("models", "import", weights, *UNET, "--output", tmp_path / "m.safetensors", *words)
    assert done.exit_code == 0, done.output
    card = read_card(tmp_path / "m.safetensors").card.model_dump(mode="json")
    assert {key: card[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--network", "resnet"], "there is no network 'resnet'; choose from"),
        (["--argument", "wdth=2"], "does not take these arguments: .*wdth"),
        (["--argument", "width"], "'width' is not KEY=VALUE, such as width=32"),
        (["--argument", "width=two"], "'width=two' is not KEY=VALUE"),
        (["--argument", "width=2\nother=3"], "is not KEY=VALUE"),
        (["--argument", "width=4"], r"does not fit: .*\(2, 1, 3, 3\) where .*\(4, 1, 3, 3\)"),
        (["--argument", "out_channels=1"], r"does not fit: .*\(2, 2, 1, 1\) where the network has head.weight"),
        (["--classes", "a,b,c"], r"3 classes \(a, b, c\) do not name the 2 output channels"),
        (["--classes", "a,,b"], "'a,,b' is not a list of distinct names"),
        (["--classes", "a,a"], "'a,a' is not a list of distinct names"),
        (["--classes", "a", "--activation", "softmax"], "a softmax over one class is 1 everywhere"),
        (["--normalization", "fixed", "--mean", "3"], "--normalization fixed needs --std"),
        (["--normalization", "fixed", "--mean", "3", "--std", "0", "--dtype", "uint8"], "deviation 0.0 .*above 0"),
        (["--mean", "3"], "--mean needs --normalization fixed"),
        (["--voxel-size", "30,6"], "is not three numbers"),
        (["--concatenation", "skip-last"], "'skip-last' is not one of 'skip-first', 'upsampled-first'"),
        (["--concatenation", "skip-first", "--network", "fusionnet"], "--concatenation is for --network unet, not fus"),
        (["--output", "m.pt"], "m.pt must end in .safetensors"),
    ],
)
def test_import_refuses_in_one_line(
    weights: Path, tmp_path: Path, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("models", "import", weights, *UNET, "--output", "m.safetensors", *words)
    assert done.exit_code in (1, 2)
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ")
    assert re.search(message, line)
    assert [path.name for path in tmp_path.iterdir()] == ["w.pt"]


def test_import_never_overwrites(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_text("mine")
    done = run("models", "import", weights, *UNET, "--output", tmp_path / "m.safetensors")
    assert (done.exit_code, "exists already; choose another name" in done.stderr) == (1, True)
    assert (tmp_path / "m.safetensors").read_text() == "mine"


@pytest.mark.parametrize("words", [["unet"], ["unet", "--json"], ["--json", "unet"]])
def test_show_is_the_default_subcommand(words: list[str]) -> None:
    done = run("models", *words)
    assert done.exit_code == 0
    shown = done.stdout
    assert json.loads(shown)["name"] == "unet" if "--json" in words else re.search(r"^name +unet$", shown, re.MULTILINE)


def test_a_model_file_is_printed_field_by_field(tmp_path: Path) -> None:
    training = {
        "fit": {"steps": 600, "learning_rate": 1e-3},
        "data": {"raw": "a.zarr", "train": [0, 20], "validation": None},
        "seconds": 12.5,
        "note": "\x1b[31mred\nnext",
    }
    arguments = {"width": 4, "depth": 2, "kernel": [1, 3, 3], "pool": [[1, 2, 2], [2, 2, 2]], "padded": True}
    path = make_model(tmp_path / "own.safetensors", "unet", arguments, training=training, license="CC0-1.0")
    header = read_card(path)
    shown = run("models", path).stdout
    assert [re.split(" {2,}", line.strip()) for line in shown.splitlines()] == [
        ["name", "own"],
        ["network", "unet"],
        ["arguments"],
        *(["width", "4"], ["depth", "2"], ["kernel", "1,3,3"], ["pool", "[[1, 2, 2], [2, 2, 2]]"], ["padded", "true"]),
        *(["reach", "1,23,23"], ["stride", "2,4,4"], ["margin", "0,0,0"], ["exact halo", "0,24,24"]),
        *(["parameters", "7,914"], ["layers", "13"], ["FLOPs per voxel", "2,880"]),
        ["format", "1"],
        ["normalisation"],
        *(["mode", "section"], ["training mean, std", "128,60"], ["training type", "uint8"]),
        *(["activation", "softmax"], ["classes", "cell, membrane"], ["voxel size, nm", "30,6,6"]),
        ["training"],
        *(["fit"], ["steps", "600"], ["learning_rate", "0.001"]),
        *(["data"], ["raw", "a.zarr"], ["train", "0,20"], ["validation", "none"]),
        *(["seconds", "12.5"], ["note", r"\x1b[31mred\nnext"]),
        ["licence", "CC0-1.0"],
        ["digest", header.digest],
    ]
    assert "\n    learning_rate  0.001\n" in shown
    found = json.loads(run("models", path, "--json").stdout)
    assert {key: found[key] for key in ("training", "arguments", "layers")} == {
        "training": training, "arguments": arguments, "layers": 13,
    }  # fmt: skip


def test_packaged_models_are_listed_by_their_cards_without_their_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path / "ours.safetensors", "unet", {"width": 2, "depth": 1})
    monkeypatch.setattr("volseg.models.packaged._FOLDER", tmp_path)
    monkeypatch.setattr("volseg.models.model.load", lambda *_: pytest.fail("weights were loaded"))
    (ours,) = json.loads(run("models", "--json").stdout)["packaged"]
    assert (ours["name"], ours["layers"], ours["flops_per_voxel"], ours["stride"]) == ("ours", 8, 456, [1, 2, 2])
    assert re.search(r"^ours +0,9,9 +1,2,2 +0,8,8 +0,8,8 +8 ", run("models").stdout, re.MULTILINE)
    assert json.loads(run("models", "ours", "--json").stdout)["digest"] == ours["digest"]
    (tmp_path / "ours.md").write_text("# Ours\n\nIs not good for much.\n")
    assert run("models", "ours").stdout.endswith("\n\n# Ours\n\nIs not good for much.\n")
    assert json.loads(run("models", "ours", "--json").stdout)["story"].startswith("# Ours")


@pytest.mark.parametrize("name", sorted(packaged_models()))
def test_a_packaged_model_is_small_and_documented(name: str) -> None:
    assert packaged_models()[name].stat().st_size < 20e6
    header = read_card(packaged_models()[name])
    assert header.card.name == name
    assert "research use" in header.card.license
    for heading in ("Data", "Scores", "Halo and speed", "Not good for"):
        assert f"\n## {heading}\n" in model_card_text(name), heading


def test_a_model_without_membrane_is_exported_as_well(weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="exporting needs pip install 'volseg[export]'")
    model = tmp_path / "m.safetensors"
    assert run("models", "import", weights, *UNET, "--output", model, "--classes", "a,b").exit_code == 0
    done = run("models", "export", model, tmp_path / "m.onnx")
    assert done.exit_code == 0, done.output
    assert "m.onnx: ONNX Runtime differs from the network by at most" in done.stdout


@pytest.mark.parametrize(
    ("model", "output", "message"),
    [
        ("own", "m.pb", "ends neither in .onnx nor in .zip; give --format"),
        ("nowhere", "m.onnx", "'nowhere' is neither a file nor a packaged model"),
        ("own", "m.zip", "'not stated'; give one, such as --license CC-BY-4.0"),
    ],
)
def test_export_refuses_in_one_line(model_file: Path, tmp_path: Path, model: str, output: str, message: str) -> None:
    pytest.importorskip("onnxruntime", reason="exporting needs pip install 'volseg[export]'")
    done = run("models", "export", model_file if model == "own" else model, tmp_path / output)
    assert done.exit_code in (1, 2)
    assert message in done.stderr
    assert not list(tmp_path.iterdir())
