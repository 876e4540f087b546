"""What a store in trouble does to a write or a read: repeated, or refused in one line."""

from __future__ import annotations

import socket
import struct
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from volseg.errors import TargetError
from volseg.storage.object_client import reading_client, split_url, writing_client
from volseg.storage.repeats import REPEATS
from volseg.storage.target_store import target_store
from volseg.storage.zarr_store import open_store, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_SKIP_SIGNATURE")


class Troubled(BaseHTTPRequestHandler):
    """Answers as `script` says, then well."""

    protocol_version = "HTTP/1.1"
    script: ClassVar[list[int | str]]
    asked: ClassVar[list[tuple[str, str | None]]]

    def log_message(self, *arguments: Any) -> None:
        pass

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append((self.command, self.headers.get("Authorization")))
        what = self.script.pop(0) if self.script else 200
        if what == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        status = int(what)
        error = b"<Error><Code>Slow</Code><StringToSign>swordfish</StringToSign></Error>"
        body = error if status >= 300 else b"" if self.command == "PUT" else b"content"
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Last-Modified": "Sat, 28 Nov 2026 10:00:00 GMT",
                            "ETag": '"x"'}.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = answer  # noqa: N815 - as http.server names them


@pytest.fixture
def troubled(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Troubled]]:
    class Handler(Troubled):
        script: ClassVar[list[int | str]] = []
        asked: ClassVar[list[tuple[str, str | None]]] = []

    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield Handler
        server.shutdown()
    for cached in (reading_client, writing_client, target_store):
        cached.cache_clear()


@pytest.fixture
def signed(troubled: type[Troubled], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "swordfish")


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize("trouble", [429, 500, 503, "reset"])
def test_a_request_is_repeated_when_a_store_is_busy_or_the_connection_lost(
    trouble: int | str, troubled: type[Troubled]
) -> None:
    store = target_store("s3://bucket")
    REPEATS.take()
    for call in (
        lambda: store.put("key", b"content"),
        lambda: store.create("key", b"content"),
        lambda: store.replace("key", b"content", ('"x"', None)),
        lambda: store.read("key"),
    ):
        troubled.asked.clear()
        troubled.script.append(trouble)
        call()
        assert len(troubled.asked) == 2
        assert REPEATS.take() == 1


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize(
    ("trouble", "says"), [(403, "privileges"), (404, "no such bucket"), (401, "valid auth"), (400, "400")]
)
def test_a_refused_write_is_not_repeated_and_its_line_quotes_nothing_that_was_signed(
    trouble: int, says: str, troubled: type[Troubled]
) -> None:
    troubled.script.append(trouble)
    with pytest.raises(TargetError, match=says) as refused:
        target_store("s3://bucket").put("key", b"content")
    assert len(troubled.asked) == 1
    assert "swordfish" not in str(refused.value)


@pytest.mark.usefixtures("signed")
def test_an_object_that_is_not_there_is_none_at_once(troubled: type[Troubled]) -> None:
    troubled.script.append(404)
    assert target_store("s3://bucket").read("key") is None
    assert len(troubled.asked) == 1


def test_a_public_bucket_is_read_without_credentials(troubled: type[Troubled]) -> None:
    assert read_bytes(open_store("s3://bucket/raw.zarr"), "zarr.json") == b"content"
    assert troubled.asked == [("GET", None)]


def test_a_write_without_credentials_is_refused_with_the_way_to_state_them(troubled: type[Troubled]) -> None:
    with pytest.raises(TargetError, match="no credentials for s3://bucket; set AWS_ACCESS_KEY_ID and"):
        target_store("s3://bucket")
    assert troubled.asked == []


def test_keys_are_taken_from_the_profile_of_the_user(
    troubled: type[Troubled], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("aws") / "credentials"
    file.write_text("[default]\naws_access_key_id = no\n[lab]\naws_access_key_id = LAB\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    target_store("s3://bucket").put("key", b"content")
    ((_, authorization),) = troubled.asked
    assert "Credential=LAB/" in str(authorization)


@pytest.mark.parametrize("location", ["s3://", "http://host/map.zarr", "map.zarr", "s3:/bucket/map.zarr"])
def test_what_is_no_url_of_an_object_is_refused(location: str) -> None:
    with pytest.raises(TargetError, match="is no URL of an object store"):
        split_url(location)
