"""Volumes in object stores are served by the viewer's process, with its credentials."""

from __future__ import annotations

from http.client import HTTPConnection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import Request, urlopen
from uuid import uuid4

import numpy as np
import pytest

from volseg.errors import SourceError
from volseg.storage import target_path
from volseg.testing.object_servers import has_moto, moto_server
from volseg.view import open_viewer
from volseg.view.sources import Role, find_layer_sources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.view.conftest import MakeVolume

pytest.importorskip("neuroglancer", reason='needs neuroglancer: pip install "volseg[view]"')
pytestmark = [
    pytest.mark.s3,
    pytest.mark.skipif(not has_moto(), reason="no moto_server; install moto[s3,server] and set VOLSEG_MOTO"),
]
SHAPE = (4, 64, 64)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a new bucket."""
    name = f"bucket-{uuid4().hex[:8]}"
    with moto_server() as url:
        urlopen(Request(f"{url}/{name}", method="PUT")).close()
        for key, value in {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "swordfish",
                           "AWS_REGION": "us-east-1"}.items():  # fmt: skip
            monkeypatch.setenv(key, value)
        yield f"s3://{name}"


def upload(folder: Path, url: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            (target_path(url) / str(path.relative_to(folder))).write_bytes(path.read_bytes())


def request(url: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(url)
    connection = HTTPConnection(str(parts.hostname), parts.port, timeout=20)
    try:
        connection.request(method, parts.path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_objects_are_served_as_files_are(bucket: str, make_volume: MakeVolume) -> None:
    voxels = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    raw, seen = make_volume("raw.zarr", voxels), make_volume("map.zarr", voxels, by_run=True, uncertainty=voxels)
    for path in (raw, seen):
        upload(path, f"{bucket}/{path.name}")
    sources = find_layer_sources([f"{bucket}/raw.zarr", f"{bucket}/map.zarr"])
    assert [source.role for source in sources] == [Role.RAW, Role.MEMBRANE, Role.UNCERTAINTY]
    assert [source.volume.shape for source in sources if source.volume] == [SHAPE] * 3
    (file,) = [path for path in raw.rglob("c/0/0/0") if path.is_file()]
    content = file.read_bytes()
    with open_viewer([f"{bucket}/raw.zarr", f"{bucket}/map.zarr"]) as session:
        layers = session.viewer.shared_state.raw_state["layers"]
        served = layers[0]["source"]["url"].removeprefix("zarr3://").removesuffix("/")
        url = f"{served}/{file.relative_to(raw)}"
        status, headers, body = request(url)
        assert (status, body, headers["cache-control"]) == (200, content, "no-cache")
        for asked, first, part in (
            ("0-9", 0, content[:10]),
            ("5-", 5, content[5:]),
            ("-8", len(content) - 8, content[-8:]),
        ):
            status, headers_of_part, body = request(url, Range=f"bytes={asked}")
            expected = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
            assert (status, body, headers_of_part["content-range"]) == (206, part, expected)
        assert request(url, If_None_Match=headers["etag"])[0::2] == (304, b"")
        status, headers_of_head, body = request(url, "HEAD")
        assert (status, headers_of_head["content-length"], body) == (200, str(len(content)), b"")
        assert request(f"{served}/0/missing")[0] == 404
        assert request(f"{served}/../map.zarr/zarr.json")[0] == 404
        secrets = str(layers) + str(headers)
        assert "swordfish" not in secrets


def test_a_volume_that_is_not_there_is_refused(bucket: str) -> None:
    with pytest.raises(SourceError, match=r"none\.zarr"):
        open_viewer([f"{bucket}/none.zarr"])
