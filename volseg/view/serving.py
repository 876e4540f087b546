"""Neuroglancer's server, and the volumes, on one port: an SSH tunnel needs no second one."""

from __future__ import annotations

import re
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import neuroglancer
import neuroglancer.server
import neuroglancer.viewer_base
from tornado.web import HTTPError, RequestHandler, StaticFileHandler

from volseg.errors import ConfigError, SourceError, redact
from volseg.storage import ObjectPath, read_object_range

if TYPE_CHECKING:
    from volseg.storage import Place, TargetPath


class _Shared(RequestHandler):
    """Lets a Neuroglancer from another origin read, if it knows the secret path."""

    def set_default_headers(self) -> None:
        """Allow it, in the terms of browsers."""
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Access-Control-Allow-Headers", "x-requested-with, range")
        self.set_header("Access-Control-Expose-Headers", "content-range")
        self.set_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")

    def options(self, *args: str) -> None:
        """Answer the preflight request of a browser."""
        self.set_status(204)


class VolumeFiles(_Shared, StaticFileHandler):
    """Serves the files of one volume read-only, with range requests, which sharded Zarr needs."""

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


class VolumeObjects(_Shared):
    """Serves the objects of one volume in a store likewise, with the credentials of this process."""

    def initialize(self, folder: ObjectPath) -> None:
        """Take the folder that is served."""
        self._folder = folder

    async def head(self, name: str) -> None:
        """Answer without the bytes."""
        await self._answer(name, body=False)

    async def get(self, name: str) -> None:
        """Answer with the bytes that are asked for."""
        await self._answer(name, body=True)

    async def _answer(self, name: str, *, body: bool) -> None:
        if ".." in name.split("/"):
            raise HTTPError(404)
        asked = parse_range(self.request.headers.get("Range", ""))
        start, stop = asked or (None, None)
        try:
            known = self.request.headers.get("If-None-Match")
            found = await read_object_range(self._folder / name, start, stop, known, body=body)
        except FileNotFoundError:
            raise HTTPError(404) from None
        except SourceError as error:
            raise HTTPError(502, reason=redact(str(error).splitlines()[0])[:200]) from error
        self.set_header("Cache-Control", "no-cache")
        if found.tag:
            self.set_header("Etag", found.tag)
        if found.is_known:
            self.set_status(304)
            return
        if asked and body:
            self.set_status(206)
            last = found.start + len(found.content) - 1
            self.set_header("Content-Range", f"bytes {found.start}-{last}/{found.size}")
        if not body:
            self.set_header("Content-Length", str(found.size))
        self.finish(found.content)

    def compute_etag(self) -> str | None:
        """Leave the store's tag as it is."""
        return None


def parse_range(header: str) -> tuple[int | None, int | None] | None:
    """First byte, negative for so many last ones, and the first byte beyond; None for no range, or several.

    >>> parse_range("bytes=2-5"), parse_range("bytes=7-"), parse_range("bytes=-9"), parse_range("bytes=0-1,5-6")
    ((2, 6), (7, None), (-9, None), None)
    """
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return -int(found[2]), None
    return int(found[1]), int(found[2]) + 1 if found[2] else None


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


def serve_folder(server: Any, folder: TargetPath) -> str:
    """Serve a folder under a secret path; return that path with a slash at both ends."""
    token = secrets.token_urlsafe(20)
    handler: tuple[Any, ...] = (VolumeFiles, {"path": str(folder)})
    if isinstance(folder, ObjectPath):
        handler = (VolumeObjects, {"folder": folder})
    server.app.add_handlers(".*", [(rf"/{token}/(.*)", *handler)])
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
