"""Servers of object stores on loopback, for tests: moto, which fakes S3 and keeps its conditions."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def has_moto() -> bool:
    """Whether moto's server is installed."""
    return _program() is not None


def _program() -> str | None:
    return os.environ.get("VOLSEG_MOTO") or shutil.which("moto_server")


@contextmanager
def moto_server() -> Iterator[str]:
    """Start moto's server, from `VOLSEG_MOTO` or the path; gives its URL.

    Raises:
        FileNotFoundError: it is not installed.
    """
    program = _program()
    if program is None:
        raise FileNotFoundError("no moto_server; pip install 'moto[s3,server]' into an environment of its own")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [program, "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
