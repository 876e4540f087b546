"""Neuroglancer's server, and the volumes, on one port: an SSH tunnel needs no second one."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import neuroglancer
import neuroglancer.server
import neuroglancer.viewer_base
from tornado.web import StaticFileHandler

from volseg.errors import ConfigError

if TYPE_CHECKING:
    from volseg.storage import Place


class VolumeFiles(StaticFileHandler):
    """Serves the files of one volume read-only, with range requests, which sharded Zarr needs."""

    def set_default_headers(self) -> None:
        """Allow a Neuroglancer from another origin to read, if it knows the secret path."""
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Access-Control-Allow-Headers", "x-requested-with, range")
        self.set_header("Access-Control-Expose-Headers", "content-range")
        self.set_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")

    def options(self, *args: str) -> None:
        """Answer the preflight request of a browser."""
        self.set_status(204)

    def compute_etag(self) -> str | None:
        """Return an entity tag of modification time and size.

        Tornado hashes the whole file, gigabytes for a shard, and caches the hash, which would show stale voxels while
        a run is still writing.
        """
        status = Path(self.absolute_path or "").stat()
        return f'"{status.st_mtime_ns:x}-{status.st_size:x}"'

    def set_extra_headers(self, path: str) -> None:
        """Make the browser revalidate its cache: a run may be writing the volume."""
        self.set_header("Cache-Control", "no-cache")


def start_server(bind: str, port: int) -> Any:
    """Start a server of Neuroglancer's client, in its own thread.

    Args:
        bind: address to listen on.
        port: 0 for any free port.

    Raises:
        ConfigError: the address or the port cannot be used.
    """
    if not bind:
        raise ConfigError("an empty bind address would open the viewer to every network; use one such as 127.0.0.1")
    if not 0 <= port <= 65535:
        raise ConfigError(f"port {port} is out of range; choose one from 1024 to 65535, or 0 for any free port")
    try:
        _try_to_bind(bind, port)
        return neuroglancer.server.Server(bind_address=bind, bind_port=port)
    except OSError as error:
        raise ConfigError(
            f"cannot serve on {bind} port {port}: {error.strerror or error}; choose another address, or port 0 for any "
            "free port"
        ) from error


def _try_to_bind(bind: str, port: int) -> None:
    """Raise OSError here rather than in the server's thread, which would leave its socket open."""
    with socket.socket(socket.AF_INET6 if ":" in bind else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((bind, port))


def serve_folder(server: Any, folder: Path) -> str:
    """Serve a folder under a secret path; return that path with a slash at both ends."""
    token = secrets.token_urlsafe(20)
    server.app.add_handlers(".*", [(rf"/{token}/(.*)", VolumeFiles, {"path": str(folder)})])
    return f"/{token}/"


def create_viewer(server: Any) -> Any:
    """Create a viewer without a state, without access to the user's credentials.

    The caller keeps the viewer: the server does not hold a reference.
    """
    viewer = neuroglancer.viewer_base.ViewerBase(allow_credentials=False)
    server.viewers[viewer.token] = viewer
    return viewer


def serve_voxels(viewer: Any, voxels: Any, place: Place, *, are_labels: bool) -> str:
    """Serve the voxels of a volume of any format, decoded by this process; return their URL.

    Args:
        viewer: that shows them.
        voxels: with a shape (z, y, x), a data type, and slices.
        place: voxel size and translation.
        are_labels: whether a coarser copy takes values, and not their mean.
    """
    space = neuroglancer.CoordinateSpace(names=["z", "y", "x"], units="nm" if place.is_nm else "", scales=place.scale)
    volume = neuroglancer.LocalVolume(
        voxels, space, volume_type="segmentation" if are_labels else "image", voxel_offset=(0, 0, 0)
    )
    return str(viewer.volume_manager.register_volume(volume))
