from __future__ import annotations

import socket
import subprocess
import sys
from http.client import HTTPConnection
from urllib.parse import urlsplit

import numpy as np
import pytest

import volseg.view
from volseg.errors import ConfigError, SourceError
from volseg.view import open_viewer

pytest.importorskip("neuroglancer", reason='needs neuroglancer: pip install "volseg[view]"')

SHAPE = (4, 32, 64)


@pytest.fixture
def raw(make_volume):
    return make_volume("raw.zarr", np.random.default_rng(0).integers(60, 181, SHAPE, dtype=np.uint8))


@pytest.fixture
def membrane(make_volume):
    return make_volume("membrane.zarr", np.full(SHAPE, 255, np.uint8), by_run=True)


def request(url, path="", method="GET", **headers):
    """Status, headers and body of an answer; the path goes out as it is written."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname, parts.port, timeout=10)
    try:
        connection.request(method, parts.path + path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def served(session, layer=0):
    """Where the files of a layer's volume are."""
    url = session.viewer.shared_state.raw_state["layers"][layer]["source"]["url"]
    return url.removeprefix("zarr3://").removesuffix("/")


def other_addresses():
    """Addresses of this machine besides 127.0.0.1."""
    addresses = {"127.0.0.2"}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a datagram socket: nothing is sent
        except OSError:
            return addresses
        return addresses | {probe.getsockname()[0]}


def test_each_volume_is_a_layer_of_a_valid_state(raw, membrane):
    with open_viewer([str(raw), str(membrane)]) as session:
        state = session.viewer.state
        assert [one.name for one in state.layers] == ["raw", "membrane"]
        assert [one.layer.type for one in state.layers] == ["image", "image"]
        assert "threshold slider" in state.layers["membrane"].shader
        assert "invlerp contrast(range=[60, 180]" in state.layers["raw"].shader
        assert [str(unit) for unit in state.dimensions.units] == ["nm"] * 3
        assert list(state.dimensions.scales) == [30, 6, 6]
        assert list(state.position) == [2, 16, 32]


def test_the_channels_of_a_volume_are_layers_that_share_its_files(make_volume):
    voxels = np.zeros((2, *SHAPE), np.uint8)
    path = make_volume("m.zarr", voxels, by_run=True, channels=("cell", "membrane"), uncertainty=voxels)
    with open_viewer([str(path)]) as session:
        state = session.viewer.state
        layers = {layer.name: (layer.visible, list(layer.layer.local_position)) for layer in state.layers}
        assert layers == {
            "m uncertainty: cell": (False, [0]),
            "m uncertainty: membrane": (False, [1]),
            "m: cell": (False, [0]),
            "m: membrane": (True, [1]),
        }
        assert served(session, 0) == served(session, 1) != served(session, 2) == served(session, 3)
        assert request(served(session, 2), "/zarr.json")[0] == 200


def test_the_client_comes_from_this_machine(raw):
    with open_viewer([str(raw)]) as session:
        status, _, page = request(session.url)
    assert (status, b"<script" in page) == (200, True)


def test_only_this_machine_can_connect(raw):
    with open_viewer([str(raw)]) as session:
        parts = urlsplit(session.url)
        assert parts.hostname == "127.0.0.1"
        socket.create_connection(("127.0.0.1", parts.port or 0), timeout=5).close()
        for address in other_addresses() - {"127.0.0.1"}:
            with pytest.raises(OSError, match=r"."):
                socket.create_connection((address, parts.port or 0), timeout=2)


def test_viewer_and_volumes_share_one_port(raw, membrane):
    with open_viewer([str(raw), str(membrane)]) as session:
        ports = {urlsplit(url).port for url in (session.url, served(session), served(session, 1))}
    assert len(ports) == 1


def test_a_shard_is_read_by_range_from_any_page(raw):
    shard = (raw / "0" / "c" / "0" / "0" / "0").read_bytes()
    with open_viewer([str(raw)]) as session:
        status, headers, body = request(served(session), "/0/c/0/0/0", Range="bytes=8-23")
        assert (status, body) == (206, shard[8:24])
        assert headers["Content-Range"] == f"bytes 8-23/{len(shard)}"
        assert headers["Access-Control-Allow-Origin"] == "*"
        status, _, body = request(served(session), "/0/c/0/0/0", Range="bytes=-20")
        assert (status, body) == (206, shard[-20:])
        status, headers, _ = request(served(session), "/0/c/0/0/0", "OPTIONS")
        assert (status, "range" in headers["Access-Control-Allow-Headers"]) == (204, True)


def test_the_browser_does_not_cache_a_voxel_that_is_written_meanwhile(raw):
    shard = raw / "0" / "c" / "0" / "0" / "0"
    with open_viewer([str(raw)]) as session:
        _, first, _ = request(served(session), "/0/c/0/0/0")
        assert request(served(session), "/0/c/0/0/0", **{"If-None-Match": first["Etag"]})[0] == 304
        shard.write_bytes(shard.read_bytes() + b"x")
        status, second, _ = request(served(session), "/0/c/0/0/0", **{"If-None-Match": first["Etag"]})
        assert (status, second["Etag"] != first["Etag"]) == (200, True)


@pytest.mark.parametrize(
    "path",
    ["/../secret", "/0/../../secret", "/%2e%2e/secret", "/..%2fsecret", "//etc/passwd", "/link", "/", "/0/c/9/9/9"],
)
def test_nothing_outside_the_volume_is_served(raw, path):
    (raw.parent / "secret").write_text("secret")
    (raw / "link").symlink_to(raw.parent / "secret")
    with open_viewer([str(raw)]) as session:
        status, _, body = request(served(session), path)
    assert status in (403, 404)
    assert b"secret" not in body.replace(b"/secret", b"")


def test_the_address_of_a_volume_cannot_be_guessed(raw):
    with open_viewer([str(raw)]) as session:
        parts = urlsplit(session.url)
        assert request(f"http://{parts.netloc}", "/raw.zarr/zarr.json")[0] == 404
        assert request(f"http://{parts.netloc}/v/guess/")[0] == 404


def test_closing_stops_the_server_and_may_be_repeated(raw):
    session = open_viewer([str(raw)])
    session.close()
    session.close()
    with pytest.raises(ConnectionRefusedError):
        request(session.url)


def test_two_viewers_run_at_the_same_time(raw, membrane):
    with open_viewer([str(raw)]) as one, open_viewer([str(membrane)]) as other:
        assert urlsplit(one.url).port != urlsplit(other.url).port
        assert request(one.url)[0] == request(other.url)[0] == 200


def test_the_host_name_is_used_in_all_urls(raw):
    with open_viewer([str(raw)], host="em.example.org") as session:
        assert urlsplit(session.url).hostname == urlsplit(served(session)).hostname == "em.example.org"


def test_urls_are_passed_on_unchanged(raw):
    url = "https://example.org/em.zarr/|zarr3:"
    with open_viewer([str(raw), url]) as session:
        assert session.viewer.shared_state.raw_state["layers"][1]["source"]["url"] == url


def test_a_port_in_use_is_refused_with_a_way_out(raw):
    with open_viewer([str(raw)]) as session, pytest.raises(ConfigError, match="port 0"):
        open_viewer([str(raw)], port=urlsplit(session.url).port or 0)


@pytest.mark.parametrize(("bind", "port"), [("", 0), ("127.0.0.1", 70000), ("203.0.113.9", 0)])
def test_addresses_that_cannot_be_used_are_refused(raw, bind, port):
    with pytest.raises(ConfigError, match=r"127.0.0.1|port 0|or 0"):
        open_viewer([str(raw)], bind=bind, port=port)


def test_a_missing_source_is_refused_before_anything_is_served(tmp_path):
    with pytest.raises(SourceError, match=r"absent\.zarr does not exist"):
        open_viewer([str(tmp_path / "absent.zarr")])


def test_without_the_extra_the_way_out_is_named(raw, monkeypatch):
    monkeypatch.delattr(volseg.view, "serving", raising=False)
    monkeypatch.delitem(sys.modules, "volseg.view.serving", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "neuroglancer"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "neuroglancer", None)
    with pytest.raises(ConfigError, match=r'pip install "volseg\[view\]"'):
        open_viewer([str(raw)])


def test_importing_the_package_loads_no_heavy_dependency():
    code = "import sys, volseg.view; print({'neuroglancer', 'matplotlib', 'torch', 'dask'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
