"""Model files are complete; other files are refused without running code."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import volseg.models.card
from volseg.errors import ConfigError, ModelError
from volseg.models import read_card, resolve_model
from volseg.models.model import load_model_file, save_model
from volseg.testing.factories import make_model, random_network

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("kind", "arguments"), [("fusionnet", {"width": 3, "depth": 1}), ("unet", {"width": 3, "depth": 1})]
)
def test_a_saved_model_loads_unchanged(tmp_path: Path, kind: str, arguments: dict[str, int]) -> None:
    model = load_model_file(make_model(tmp_path / "m.safetensors", kind, arguments, seed=5))
    network = random_network(kind, arguments, seed=5)
    x = torch.randn(1, 1, 44, 44)
    with torch.inference_mode():
        torch.testing.assert_close(model.network(x), network(x), rtol=0, atol=0)
    assert not model.network.training
    assert model.card.arguments == arguments


def test_the_card_is_read_without_torch(small_model: Path) -> None:
    code = (
        "import sys; from volseg.models import read_card; "
        f"print(read_card({str(small_model)!r}).card.footprint.stride, 'torch' in sys.modules)"
    )
    stdout = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert stdout.strip() == "(1, 4, 4) False"


def test_the_digest_depends_on_the_function_and_not_on_the_file(tmp_path: Path) -> None:
    first = read_card(make_model(tmp_path / "a.safetensors", seed=1))
    same = read_card(make_model(tmp_path / "b.safetensors", seed=1))
    other = read_card(make_model(tmp_path / "c.safetensors", seed=2))
    mode = read_card(make_model(tmp_path / "d.safetensors", seed=1, mode="fixed"))
    assert first.digest == same.digest
    assert len({first.digest, other.digest, mode.digest}) == 3


def test_normalize_and_activate_follow_the_card(tmp_path: Path) -> None:
    model = load_model_file(make_model(tmp_path / "m.safetensors", "unet", {"width": 2, "depth": 1}, mode="fixed"))
    raw = np.full((2, 4, 4), 188, np.uint8)
    np.testing.assert_allclose(model.normalize(raw), 1.0)
    np.testing.assert_allclose(model.normalize(raw, ((188.0, 1.0),)), 0.0)
    output = torch.randn(1, 2, 4, 4)
    probability = model.activate(output)
    assert probability.shape == (1, 1, 4, 4)
    torch.testing.assert_close(probability[:, 0], output.softmax(dim=1)[:, 1])


def _write_pickle(path: Path) -> Path:
    torch.save({"weight": torch.zeros(2)}, path)
    return path


def _write_truncated(path: Path) -> Path:
    content = make_model(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def _write_corrupt(path: Path) -> Path:
    content = bytearray(make_model(path).read_bytes())
    content[-100] ^= 1
    path.write_bytes(bytes(content))
    return path


def _write_without_card(path: Path) -> Path:
    save_file({"weight": torch.zeros(2)}, path)
    return path


def _write_text(path: Path) -> Path:
    path.write_text("not a model at all, just some text that is long enough")
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_write_pickle, "is a pickled PyTorch file, which could run code and is never loaded"),
        (_write_truncated, "is not a complete .safetensors model file"),
        (_write_without_card, "holds weights without a volseg card"),
        (_write_text, "is not a complete .safetensors model file"),
        (lambda path: path, "cannot read model file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, make, message) -> None:
    with pytest.raises(ModelError, match=message):
        read_card(make(tmp_path / "m.safetensors"))


def test_changed_weights_are_refused_where_they_are_read(tmp_path: Path) -> None:
    path = _write_corrupt(tmp_path / "m.safetensors")
    for read in (load_model_file, partial(read_card, verify=True)):
        with pytest.raises(ModelError, match="does not match its digest"):
            read(path)


def test_a_card_is_read_without_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_model(tmp_path / "m.safetensors")
    whole = read_card(path, verify=True)
    size, content = path.stat().st_size, path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    with path.open("r+b") as file:  # a sparse file of the same size: what follows the header is never looked at
        file.truncate(header)
        file.truncate(size)
    assert read_card(path) == whole
    monkeypatch.setattr(volseg.models.card, "weights_digest", None)
    assert read_card(path) == whole


def test_a_model_file_without_a_digest_has_that_of_its_weights(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.safetensors")
    whole, content = read_card(path), path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    del header["__metadata__"]["digest"]
    changed = json.dumps(header).encode()
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + length :])
    assert read_card(path) == whole
    assert load_model_file(path).digest == whole.digest


def test_old_pickles_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1)}, tmp_path / "m.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match="pickled"):
        read_card(tmp_path / "m.pt")


def test_a_card_with_a_wrong_reach_is_refused(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.safetensors")
    model = load_model_file(path)
    footprint = model.card.footprint
    wrong = type(footprint)(**{f: getattr(footprint, f) for f in footprint.__slots__} | {"context": (0, 4, 4)})
    save_model(path, model.network, model.card.model_copy(update={"footprint": wrong}))
    with pytest.raises(ModelError, match="reach or stride in the card of .* differ"):
        load_model_file(path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.safetensors")
    card = load_model_file(path).card
    save_model(path, random_network("fusionnet", {"width": 8, "depth": 2}), card)
    with pytest.raises(ModelError, match="do not match fusionnet"):
        load_model_file(path)


def test_a_card_of_another_format_is_refused(tmp_path: Path) -> None:
    content = make_model(tmp_path / "m.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"]["volseg"] = header["__metadata__"]["volseg"].replace('"format":1', '"format":2')
    changed = json.dumps(header).encode()
    (tmp_path / "m.safetensors").write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + size :])
    with pytest.raises(ModelError, match="cannot read the card of .*format"):
        read_card(tmp_path / "m.safetensors")


def test_unknown_models_are_refused() -> None:
    with pytest.raises(ConfigError, match="'fusionnet-mars' is neither a file nor a packaged model"):
        resolve_model("fusionnet-mars")


def test_float16_files_have_about_half_the_size(tmp_path: Path) -> None:
    network = random_network("fusionnet", {"width": 8, "depth": 2})
    card = load_model_file(make_model(tmp_path / "whole.safetensors", "fusionnet", {"width": 8, "depth": 2})).card
    save_model(tmp_path / "whole.safetensors", network, card)
    save_model(tmp_path / "half.safetensors", network, card, float16=True)
    whole, half = (load_model_file(tmp_path / f"{name}.safetensors") for name in ("whole", "half"))
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.6 * sizes[1]
    assert half.digest != whole.digest
    for (name, rounded), exact in zip(
        half.network.state_dict().items(), whole.network.state_dict().values(), strict=True
    ):
        assert rounded.dtype == exact.dtype
        expected = exact.half().to(exact.dtype) if exact.ndim > 1 else exact
        assert torch.equal(rounded, expected), name


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_layer(tmp_path: Path, value: float) -> None:
    """oneDNN's ReLU turns NaN into 0: the map would look plausible."""
    path = make_model(tmp_path / "m.safetensors")
    model = load_model_file(path)
    name, weight = next((name, weight) for name, weight in model.network.named_parameters() if weight.ndim > 1)
    with torch.no_grad():
        weight.view(-1)[1] = value
    save_model(path, model.network, model.card)
    with pytest.raises(ModelError, match=rf"{name} holds NaN or infinity, .* take an earlier model"):
        load_model_file(path)


def test_a_model_behind_a_url_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match="model 's3://bucket/m.safetensors' is a URL; models are read from paths"):
        resolve_model("s3://bucket/m.safetensors")
