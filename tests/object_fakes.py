"""A server of objects on loopback that keeps conditions, as S3 and Google's store are asked, with troubles on demand.

It stores in memory, or passes requests on to another server. Every write is logged at the moment at which it lands.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from hashlib import md5
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = 1000
"""Objects that a listing names at once."""
PASSED = ("if-match", "if-none-match", "range", "authorization", "content-type", "x-amz-content-sha256", "x-amz-date",
          "x-amz-checksum-sha256", "content-md5")  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What a client asked: method, bucket and key, query, headers in lower case, and body."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    target: str

    @property
    def key(self) -> str:
        """Without the bucket."""
        return self.path.partition("/")[2]


@dataclass(frozen=True)
class Answer:
    """What the server says."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Write:
    """A write that landed, or was refused by its condition: when, how long it was held back, and what it answered."""

    at: float
    late: float
    request: Request
    status: int


@dataclass
class ObjectServer:
    """The objects, and what is to go wrong.

    Attributes:
        trouble: of each request: a status, `reset`, `lost` (done, and the answer lost), `half` (of a body), a number of
            seconds to stall as `stall:0.1`, or to land after the connection was lost as `late:0.1`; None for none.
        upstream: host and port of a server to pass requests on to; None to store in memory.
        log: of the writes.
        asked: number of requests.
    """

    trouble: Callable[[Request], str | None] = lambda request: None
    upstream: tuple[str, int] | None = None
    log: list[Write] = field(default_factory=list)
    asked: int = 0
    objects: dict[str, tuple[bytes, int, float]] = field(default_factory=dict)
    url: str = ""
    pending: list[threading.Timer] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _generations: Iterator[int] = field(default_factory=lambda: count(1))

    def land(self, request: Request, late: float = 0.0) -> Answer:
        """Do what is asked."""
        with self._lock:
            answer = self._forward(request) if self.upstream else self._act(request)
            if request.method in ("PUT", "DELETE", "POST"):
                self.log.append(Write(time.monotonic(), late, request, answer.status))
            return answer

    def land_later(self, request: Request, seconds: float) -> None:
        """Do what is asked, when the client has given it up."""
        timer = threading.Timer(seconds, self.land, (request, seconds))
        timer.daemon = True
        self.pending.append(timer)
        timer.start()

    def settle(self) -> None:
        """Wait until all late writes have landed."""
        for timer in self.pending:
            timer.join()
        self.pending.clear()

    def _forward(self, request: Request) -> Answer:
        assert self.upstream is not None
        connection = HTTPConnection(*self.upstream, timeout=60)
        try:
            headers = {name: value for name, value in request.headers.items() if name in PASSED}
            connection.request(request.method, request.target, request.body or None, headers)
            answer = connection.getresponse()
            kept = {n: v for n, v in answer.getheaders() if n.lower() in ("etag", "last-modified", "content-length",
                                                                         "content-range", "content-type")}  # fmt: skip
            return Answer(answer.status, answer.read(), kept)
        finally:
            connection.close()

    def _act(self, request: Request) -> Answer:
        found = self.objects.get(request.path)
        if request.method in ("GET", "HEAD"):
            if not request.key:
                return self._list(request)
            return Answer(404) if found is None else _read(request, found)
        if request.method == "PUT":
            if not _holds(request, found):
                return Answer(412)
            stored = self.objects[request.path] = (request.body, next(self._generations), time.time())
            return Answer(200, headers=_described(stored))
        if request.method == "DELETE":
            return Answer(204 if self.objects.pop(request.path, None) else 404)
        bucket = request.path.rstrip("/")
        keys = [str(e.text) for e in ElementTree.fromstring(request.body).iter() if e.tag.endswith("Key")]
        for key in keys:
            self.objects.pop(f"{bucket}/{key}", None)
        deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        return Answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def _list(self, request: Request) -> Answer:
        bucket = f"{request.path.rstrip('/')}/"
        asked = {name: values[0] for name, values in request.query.items()}
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
        after = asked.get("continuation-token") or asked.get("start-after", "")
        folders: dict[str, None] = {}
        lines: list[str] = []
        keys = sorted(path[len(bucket) :] for path in self.objects if path.startswith(bucket + prefix))
        keys = [key for key in keys if key > after]
        for key in keys[:PAGE]:
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                folders[prefix + rest.partition(delimiter)[0] + delimiter] = None
                continue
            content, generation, at = self.objects[bucket + key]
            when = datetime.fromtimestamp(at, UTC).isoformat()
            lines.append(
                f"<Contents><Key>{escape(key)}</Key><LastModified>{when}</LastModified><Size>{len(content)}</Size>"
                f"<ETag>{_tag(content)}</ETag><Generation>{generation}</Generation></Contents>"
            )
        lines += [f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders]
        if len(keys) > PAGE:
            lines.append(f"<NextContinuationToken>{escape(keys[PAGE - 1])}</NextContinuationToken>")
        return Answer(200, f"<ListBucketResult>{''.join(lines)}</ListBucketResult>".encode())


def _tag(content: bytes) -> str:
    return f'"{md5(content, usedforsecurity=False).hexdigest()}"'


def _described(stored: tuple[bytes, int, float]) -> dict[str, str]:
    content, generation, at = stored
    return {"ETag": _tag(content), "Last-Modified": formatdate(at, usegmt=True), "x-goog-generation": str(generation)}


def _holds(request: Request, found: tuple[bytes, int, float] | None) -> bool:
    """Whether the condition of a put holds, in the words of S3 or of Google's store."""
    headers = request.headers
    if (generation := headers.get("x-goog-if-generation-match")) is not None:
        return int(generation) == (0 if found is None else found[1])
    if headers.get("if-none-match") == "*":
        return found is None
    tag = headers.get("if-match")
    return tag is None or (found is not None and tag == _tag(found[0]))


def _read(request: Request, found: tuple[bytes, int, float]) -> Answer:
    content, described = found[0], _described(found)
    asked = request.headers.get("range", "").removeprefix("bytes=")
    if not asked:
        return Answer(200, content, described)
    first, _, last = asked.partition("-")
    start = int(first) if first else max(len(content) - int(last), 0)
    stop = min(int(last) + 1, len(content)) if first and last else len(content)
    if start >= stop:
        return Answer(416)
    described["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
    return Answer(206, content[start:stop], described)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments: Any) -> None:
        pass

    def answer(self) -> None:
        state, split = self.server.state, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = parse_qs(split.query, keep_blank_values=True)
        request = Request(self.command, unquote(split.path).lstrip("/"), query, headers, body, self.path)
        state.asked += 1
        trouble, _, seconds = (state.trouble(request) or "").partition(":")
        if trouble.isdecimal():
            self.say(Answer(int(trouble), b"<Error><Code>SlowDown</Code></Error>"))
            return
        if trouble == "stall":
            time.sleep(float(seconds))
        if trouble == "late":
            state.land_later(request, float(seconds))
        if trouble == "lost":
            state.land(request)
        if trouble in ("reset", "lost", "late") or (trouble == "half" and body):
            self.reset()
            return
        self.say(state.land(request), half=trouble == "half")

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def say(self, answer: Answer, *, half: bool = False) -> None:
        with suppress(OSError, HTTPException):
            self.send_response(answer.status)
            length = {name.lower(): value for name, value in answer.headers.items()}.get("content-length")
            for name, value in answer.headers.items():
                if name.lower() != "content-length":
                    self.send_header(name, value)
            is_head = self.command == "HEAD"
            size = length if is_head and length is not None else str(len(answer.body))
            self.send_header("Content-Length", size)
            self.end_headers()
            if half and answer.body:
                self.wfile.write(answer.body[: len(answer.body) // 2])
                self.wfile.flush()
                self.reset()
            elif not is_head:
                self.wfile.write(answer.body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer  # noqa: N815 - as http.server names them


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, state: ObjectServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state = state

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients are killed, and connections cut."""


@contextmanager
def object_server(upstream: tuple[str, int] | None = None) -> Iterator[ObjectServer]:
    """Serve objects until the end of the block."""
    state = ObjectServer(upstream=upstream)
    with _Server(state) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield state
        finally:
            state.settle()
            server.shutdown()


S3_VARIABLES = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "swordfish", "AWS_REGION": "us-east-1"}


def s3_variables(url: str) -> dict[str, str]:
    """What a client of S3 needs to know of a server."""
    return {**S3_VARIABLES, "AWS_ENDPOINT_URL": url}


def gs_variables(url: str) -> dict[str, str]:
    """What a client of Google's store needs to know of a server."""
    return {"STORAGE_EMULATOR_HOST": url}
