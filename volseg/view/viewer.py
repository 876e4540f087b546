"""Volumes opened in Neuroglancer, served from this machine; no internet is needed."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from volseg.blocks import Box, Zyx
from volseg.errors import ConfigError, SourceError
from volseg.ops.contrast import grey_range
from volseg.storage import open_volume
from volseg.view.scene import Layer, scene
from volseg.view.sources import Role, Source, find_sources

if TYPE_CHECKING:
    from pathlib import Path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

_GREY = (Role.RAW, Role.IMAGE)
_EVERYWHERE = ("0.0.0.0", "::")


class Session:
    """A viewer that is being served; closing it, or leaving its `with`, ends that.

    Attributes:
        url: the address to open in a browser.
        viewer: Neuroglancer's own viewer, whose state can be read and changed.
    """

    def __init__(self, server: Any, viewer: Any, url: str) -> None:
        self.url = url
        self.viewer = viewer
        self._server = server

    def close(self) -> None:
        """Stop serving; a second time does nothing."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
            server.executor.shutdown()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def open_viewer(sources: Sequence[str], *, bind: str = "127.0.0.1", port: int = 0, host: str | None = None) -> Session:
    """Serve volumes and show them in Neuroglancer, one layer each; one layer a channel where there are several.

    The raw EM is drawn in grey, membrane maps as a colour over it with a slider for the threshold, labels as
    segments. A volume with a run record of volseg is a membrane map; of the others the first is the raw EM.
    Affinities are red, green and blue under the raw EM; a map's uncertainty goes from black to orange, hidden at first.

    Args:
        sources: paths of OME-Zarr groups or Zarr arrays, or URLs, which Neuroglancer opens by itself.
        bind: the address to listen on; only this machine can connect unless it says otherwise.
        port: the port for viewer and volumes; 0 for any that is free.
        host: the name by which browsers reach this machine; by default `bind`, or this machine's name where that
            is every address.

    Raises:
        SourceError: a source is missing, or is not a volume that can be drawn.
        ConfigError: no source, an address or port that cannot be had, or Neuroglancer is not installed.
    """
    found = find_sources(sources)
    serving = _serving()
    server = serving.start_server(bind, port)
    try:
        base = f"http://{_in_url(host or _reachable(bind))}:{server.port}"
        folders = {source.facts.folder for source in found if source.facts is not None}
        served = {folder: base + serving.serve_folder(server, folder) for folder in folders}
        layers = [_layer(source, served) for source in found]
        viewer = serving.start_viewer(server, scene(layers))
    except BaseException:
        server.stop()
        raise
    return Session(server, viewer, f"{base}/v/{viewer.token}/")


def _serving() -> ModuleType:
    try:
        from volseg.view import serving  # noqa: PLC0415  # Neuroglancer is an extra
    except ImportError as error:
        raise ConfigError(f'Neuroglancer is not installed ({error}); pip install "volseg[view]"') from error
    return serving


def _layer(source: Source, served: Mapping[Path, str]) -> Layer:
    facts = source.facts
    if facts is None:
        return Layer(source, source.location)
    grey = sampled_grey_range(facts.array, facts.shape, source.channel) if source.role in _GREY else None
    return Layer(source, f"{facts.format}://{served[facts.folder]}", grey)


def _reachable(bind: str) -> str:
    return socket.getfqdn() if bind in _EVERYWHERE else bind


def _in_url(host: str) -> str:
    """A host as URLs write it: an IPv6 address stands in brackets.

    >>> _in_url("127.0.0.1"), _in_url("::1")
    ('127.0.0.1', '[::1]')
    """
    return f"[{host}]" if ":" in host else host


def sampled_grey_range(array: Path, shape: Zyx, channel: int | None = None) -> tuple[float, float] | None:
    """The same for a volume on disk, from a window in the section that is shown first; None where it cannot be read."""
    z, y, x = (max(n // 2 - w // 2, 0) for n, w in zip(shape, _WINDOW, strict=True))
    window = Box((z, y, x), (z + _WINDOW[0], y + _WINDOW[1], x + _WINDOW[2])).intersection(Box.of_shape(shape))
    try:
        return grey_range(open_volume(str(array), channel=channel).read(window))
    except SourceError:
        return None  # a codec that only Neuroglancer reads, or a damaged chunk: contrast can be set by hand


_WINDOW = (1, 1024, 1024)
