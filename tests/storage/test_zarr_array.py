"""Zarr arrays as other programs store them: byte and memory orders, chunk keys, codecs, servers that answer 403."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from volseg.blocks import Box
from volseg.errors import SourceError
from volseg.storage import GREY, LABELS, open_volume, zarr_array, zarr_store
from volseg.testing.factories import blobs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHAPE = (4, 20, 24)
VOXELS = blobs(SHAPE)
WHOLE = Box.of_shape(SHAPE)


def write(path: Path, dtype: str = "|u1", **options: Any) -> Path:
    zarr.create_array(path, shape=SHAPE, chunks=(2, 8, 8), dtype=dtype, zarr_format=2, **options)[:] = VOXELS
    return path


def edit(path: Path, **changes: Any) -> None:
    """Change the metadata; None removes a key."""
    document = json.loads((path / ".zarray").read_text()) | changes
    (path / ".zarray").write_text(json.dumps({k: v for k, v in document.items() if v is not None or k == "filters"}))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["|u1", "<u2", ">u2", ">i2", ">f4", ">u4", ">u8"])
def test_every_byte_and_memory_order_is_read_in_the_machines_own(tmp_path: Path, dtype: str, order: Any) -> None:
    volume = open_volume(str(write(tmp_path / "a", dtype, order=order)), (*GREY, *LABELS))
    read = volume.read(Box((1, 3, 3), (4, 20, 30)))
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, np.pad(VOXELS, ((0, 0), (0, 0), (0, 6)), mode="reflect")[1:, 3:, 3:])


@pytest.mark.parametrize("dtype", ["<u1", ">u1"])
def test_bytes_with_a_byte_order_are_bytes(tmp_path: Path, dtype: str) -> None:
    edit(write(tmp_path / "a"), dtype=dtype)
    np.testing.assert_array_equal(open_volume(str(tmp_path / "a")).read(WHOLE), VOXELS)


def test_chunks_in_folders_are_found_without_a_stated_separator(tmp_path: Path) -> None:
    for name, separator in (("nested", "/"), ("flat", ".")):
        key = {"name": "v2", "separator": separator}
        edit(write(tmp_path / name, chunk_key_encoding=key), dimension_separator=None)
        np.testing.assert_array_equal(open_volume(str(tmp_path / name)).read(WHOLE), VOXELS)


def test_a_codec_that_is_not_installed_is_named_with_what_to_install(tmp_path: Path, monkeypatch: Any) -> None:
    edit(write(tmp_path / "a"), compressor={"id": "unheard-of"})
    with pytest.raises(SourceError, match="need the codec unheard-of, which is not installed; store") as caught:
        open_volume(str(tmp_path / "a"))
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(zarr_array, "find_spec", lambda _: None)
    edit(tmp_path / "a", compressor={"id": "imagecodecs_no_such"})
    with pytest.raises(SourceError, match=r"codec imagecodecs_no_such, .* pip install 'volseg\[convert\]'"):
        open_volume(str(tmp_path / "a"))


def test_jpeg_2000_chunks_are_read(tmp_path: Path) -> None:
    codecs = pytest.importorskip("imagecodecs.numcodecs")
    path = write(tmp_path / "a")
    encode = codecs.Jpeg2k(level=0, reversible=True).encode
    edit(path, chunks=[1, *SHAPE[1:]], compressor={"id": "imagecodecs_jpeg2k", "level": 0, "reversible": True})
    for chunk in path.glob("*.*.*"):
        chunk.unlink()
    for z, section in enumerate(VOXELS):
        (path / f"{z}.0.0").write_bytes(encode(np.ascontiguousarray(section)))
    np.testing.assert_array_equal(open_volume(str(path)).read(WHOLE), VOXELS)


@pytest.fixture
def forbidding(tmp_path: Path) -> Iterator[tuple[str, set[str]]]:
    """A server that answers 403 to what does not exist, as S3 does, and to some names; its URL and these names."""
    denied: set[str] = set()

    class Forbidding(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = tmp_path / self.path.lstrip("/")
            found = path.is_file() and path.name not in denied
            content = path.read_bytes() if found else b""
            self.send_response(200 if found else 403)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Forbidding) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", denied
        server.shutdown()
        thread.join()


def test_a_forbidden_chunk_is_missing_only_if_the_metadata_are_allowed(tmp_path: Path, forbidding: Any) -> None:
    url, denied = forbidding
    write(tmp_path / "a")
    (tmp_path / "a" / "0.0.0").unlink()
    volume = open_volume(f"{url}/a")
    expected = VOXELS.copy()
    expected[:2, :8, :8] = 0
    np.testing.assert_array_equal(volume.read(WHOLE), expected)
    denied |= {".zarray", "1.1.1"}
    with pytest.raises(SourceError, match="403 Forbidden") as caught:
        volume.read(WHOLE)
    assert "\n" not in str(caught.value)


def test_a_server_that_forbids_everything_is_named(forbidding: Any) -> None:
    with pytest.raises(SourceError, match="nothing is there, or its server denies access"):
        open_volume(f"{forbidding[0]}/a")


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_one_short_line() -> None:
    with pytest.raises(SourceError, match="http://127.0.0.1:9/raw.zarr: the server does not answer") as caught:
        open_volume("http://127.0.0.1:9/raw.zarr")
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc"], ids=["none", "half"])
def test_a_server_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    assert zarr_store._CONNECTION["read_timeout"] <= timedelta(minutes=1)
    monkeypatch.setitem(zarr_store._CONNECTION, "read_timeout", timedelta(seconds=0.3))
    monkeypatch.setitem(zarr_store._RETRY, "retry_timeout", timedelta(seconds=0.5))
    connections: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connections.append(server.accept()[0])
                connections[-1].sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(SourceError) as caught:
            open_volume(f"http://127.0.0.1:{server.getsockname()[1]}/raw.zarr")
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in connections:
        connection.close()
    assert "\n" not in str(caught.value)
