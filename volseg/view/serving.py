"""Neuroglancer's own server, and the volumes served beside it: one port, so that one tunnel reaches both."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import Any

import neuroglancer.server
import neuroglancer.viewer_base
from tornado.web import StaticFileHandler

from volseg.errors import ConfigError


class VolumeFiles(StaticFileHandler):
    """The files of one volume, read only, by range: what a browser needs to read a sharded Zarr."""

    def set_default_headers(self) -> None:
        """Let a Neuroglancer from elsewhere read too, if it was given the secret address."""
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Access-Control-Allow-Headers", "x-requested-with, range")
        self.set_header("Access-Control-Expose-Headers", "content-range")
        self.set_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")

    def options(self, *args: str) -> None:
        """Answer a browser that asks before it reads."""
        self.set_status(204)

    def compute_etag(self) -> str | None:
        """Tell versions of a file apart by time and size.

        Tornado's own way reads the whole file, gigabytes for a shard, and never looks again, which would show
        stale voxels while a run is still writing.
        """
        status = Path(self.absolute_path or "").stat()
        return f'"{status.st_mtime_ns:x}-{status.st_size:x}"'

    def set_extra_headers(self, path: str) -> None:
        """Have the browser ask whether its copy is still good: a run may be writing the volume."""
        self.set_header("Cache-Control", "no-cache")


def start_server(bind: str, port: int) -> Any:
    """Start a server of Neuroglancer's client, in a thread of its own.

    Args:
        bind: the address to listen on.
        port: 0 for any that is free.

    Raises:
        ConfigError: the address or the port cannot be had.
    """
    if not bind:
        raise ConfigError("an empty address would open the viewer to every network; name one, such as 127.0.0.1")
    if not 0 <= port <= 65535:
        raise ConfigError(f"port {port} does not exist; choose one from 1024 to 65535, or 0 for any that is free")
    try:
        _try_to_bind(bind, port)
        return neuroglancer.server.Server(bind_address=bind, bind_port=port)
    except OSError as error:
        raise ConfigError(
            f"cannot serve on {bind} port {port}: {error.strerror or error}; choose another address, or port 0 for any "
            "that is free"
        ) from error


def _try_to_bind(bind: str, port: int) -> None:
    """Fail here rather than in the server's thread, which would leave its socket open."""
    with socket.socket(socket.AF_INET6 if ":" in bind else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((bind, port))


def serve_folder(server: Any, folder: Path) -> str:
    """Serve a folder under a secret path; returns that path, with slashes around it."""
    token = secrets.token_urlsafe(20)
    server.app.add_handlers(".*", [(rf"/{token}/(.*)", VolumeFiles, {"path": str(folder)})])
    return f"/{token}/"


def start_viewer(server: Any, state: dict[str, Any]) -> Any:
    """Make a viewer with this state; the server alone does not keep it alive.

    It is never lent the credentials of the user who runs it.
    """
    viewer = neuroglancer.viewer_base.ViewerBase(allow_credentials=False)
    viewer.set_state(state)
    server.viewers[viewer.token] = viewer
    return viewer
