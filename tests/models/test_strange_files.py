"""Model files of strangers: the card and the header are checked before anything is allocated."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from volseg.errors import ConfigError, ModelError, VolsegError
from volseg.models import read_card
from volseg.models.describe import describe_network
from volseg.models.interop.state_dict import read_state_dict
from volseg.models.model import load_model_file
from volseg.models.registry import build_network
from volseg.ops import Normalization

if TYPE_CHECKING:
    from pathlib import Path

NAN, INFINITY = float("nan"), float("inf")


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write(path: Path, header: dict[str, Any] | bytes, tensors: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + tensors)
    return path


def with_card(path: Path, model: Path, field: str, value: Any) -> Path:
    header, tensors = parts(model)
    card = json.loads(header["__metadata__"]["volseg"])
    table = card
    *tables, key = field.split(".")
    for name in tables:
        table = table[name]
    table[key] = value
    header["__metadata__"] = {"volseg": json.dumps(card)}
    return write(path, header, tensors)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("footprint.stride", [1, 0, 4]),
        ("footprint.stride", [1, 10**9, 4]),
        ("footprint.smallest", [1, 0, 0]),
        ("footprint.margin", [0, -1, 0]),
        ("footprint.reach_before", [0, 10**12, 0]),
        ("footprint.dimensions", 7),
        ("arguments.width", 10**12),
        ("arguments.width", NAN),
        ("arguments", {"kernel": [3] * 2000}),
        ("voxel_nm", [0, 0, 0]),
        ("voxel_nm", [NAN, 4, 4]),
        ("voxel_nm", ["a", 4, 4]),
        ("normalization.training", [0, 0]),
        ("normalization.training", [0, NAN]),
        ("normalization.training", [INFINITY, 1]),
        ("normalization.mode", "mars"),
        ("normalization.dtype", 5),
        ("classes", []),
        ("classes", ["membrane", "membrane"]),
        ("parameters", 10**18),
        ("parameters", -1),
        ("training", [1]),
        ("unknown", 1),
    ],
)
def test_a_card_that_cannot_be_is_refused_by_its_field(
    tmp_path: Path, small_model: Path, field: str, value: Any
) -> None:
    name = field.rpartition(".")[2] if "normalization.mode" not in field else "normalisation"
    with pytest.raises(ModelError, match=f"m.safetensors.*{name}"):
        read_card(with_card(tmp_path / "m.safetensors", small_model, field, value))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 4, "depth": 1000}, "depth 1000 at most 16"),
        ({"width": 65536, "depth": 16}, "overflow"),
        ({"width": 1, "depth": 16}, "has 307809004147 parameters, more than 2147483648"),
        ({"width": 4, "depth": 2, "kernel": [65535, 65535]}, "parameters, more than"),
        ({"width": "a"}, "does not take these arguments"),
        ({"in_channels": 0}, "does not take these arguments"),
        ({"in_channels": -1}, "does not take these arguments"),
        ({"width": 8, "depth": 2}, "do not match fusionnet"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(
    tmp_path: Path, small_model: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=f"m.safetensors.*{message}") as caught:
        load_model_file(with_card(tmp_path / "m.safetensors", small_model, "arguments", arguments))
    assert len(str(caught.value)) < 600


def test_chains_and_strides_have_a_limit() -> None:
    with pytest.raises(ConfigError, match="length 60000 must be 2 to 8"):
        build_network("fusionnet_chain", {"length": 60_000})
    with pytest.raises(ModelError, match="a stride of 512, above 256"):
        describe_network("fusionnet", {"width": 1, "depth": 9})
    with pytest.raises(ConfigError, match=r"normalization.training is \(0, 0\)"):
        Normalization("fixed", (0, 0))


def test_a_large_network_is_refused_before_it_is_allocated() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError, match="has .* parameters, more than"):
        build_network("deconvnet", {"width": 400})  # 10^10 parameters
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


FIRST = "bridge.0.0.weight"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F4"}, "has the unknown type F4; save it as one of F64, F32"),
        ({"dtype": 5}, "has the unknown type 5"),
        ({"shape": [-1, 4]}, r"has the shape \[-1, 4\]"),
        ({"shape": None}, "has the shape None"),
        ({"shape": [2**61] * 8}, "has data_offsets"),
        ({"data_offsets": [0]}, "has data_offsets"),
        ({"data_offsets": [-5, 10**30]}, "has data_offsets"),
    ],
)
def test_a_tensor_that_cannot_be_is_refused_by_its_name(
    tmp_path: Path, small_model: Path, entry: dict[str, Any], message: str
) -> None:
    header, tensors = parts(small_model)
    header[FIRST] |= entry
    with pytest.raises(ModelError, match=f"tensor {FIRST} {message}"):
        read_card(write(tmp_path / "m.safetensors", header, tensors))


def test_tensors_that_overlap_or_leave_gaps_are_refused(tmp_path: Path, small_model: Path) -> None:
    header, tensors = parts(small_model)
    for wrong in (header | {"more": header[FIRST]}, {key: value for key, value in header.items() if key != FIRST}):
        with pytest.raises(ModelError, match="not a complete"):
            read_card(write(tmp_path / "m.safetensors", wrong, tensors))


@pytest.mark.parametrize("header", [b"[]", b"5", b"[" * 100_000, b'{"a":' * 20_000, b"\xff\xfe" * 10])
def test_headers_that_are_no_object_are_refused(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(ModelError, match="not a complete"):
        read_card(write(tmp_path / "m.safetensors", header))


def test_metadata_that_are_no_texts_are_refused(tmp_path: Path) -> None:
    strange: list[Any] = [[1], {"volseg": {}}, {"volseg": "{}", "digest": 5}]
    for metadata in strange:
        with pytest.raises(ModelError, match="__metadata__ of its header should be an object of texts"):
            read_card(write(tmp_path / "m.safetensors", {"__metadata__": metadata}))


def sparse(path: Path, header: dict[str, Any] | bytes, size: int) -> Path:
    write(path, header)
    with path.open("r+b") as file:
        file.truncate(size)
    return path


def test_sparse_files_and_long_headers_are_not_read(tmp_path: Path, small_model: Path) -> None:
    """In a process whose memory would not hold them."""
    header, _ = parts(small_model)
    large = {"__metadata__": header["__metadata__"], "a": {"dtype": "F32", "shape": [25 << 30]}}
    large["a"]["data_offsets"] = [0, 100 << 30]
    beside = {"__metadata__": header["__metadata__"], "a": {"dtype": "F32", "shape": [1 << 29]}}
    beside["a"]["data_offsets"] = [0, 1 << 31]
    files = [
        sparse(tmp_path / "long.safetensors", b"{" + b" " * (17 << 20) + b"}", 18 << 20),
        sparse(tmp_path / "cut.safetensors", b"{}", 100 << 30),
        sparse(tmp_path / "large.safetensors", large, 8 + len(json.dumps(large)) + (100 << 30)),
        sparse(tmp_path / "beside.safetensors", beside, 8 + len(json.dumps(beside)) + (1 << 31)),
    ]
    code = (
        "import resource, sys; from volseg.models.card import read_card, read_model_file\n"
        "from volseg.errors import ModelError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    for read in (read_card, read_model_file, lambda path: read_card(path, verify=True)):\n"
        "        try: read(path)\n"
        "        except ModelError as error: last = str(error)\n"
        "    print(last)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", code, *map(str, files)]
    *lines, grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for line, message in zip(
        lines,
        ["has a header of 178257", "is not a complete", "holds 26843545600 values, and", "values for the 18429 param"],
        strict=True,
    ):
        assert message in line
    assert int(grown) < 100_000
    for path in files[:3]:
        with pytest.raises(VolsegError):
            read_state_dict(path)
