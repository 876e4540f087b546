"""Neuroglancer on volumes of this machine, served locally; no internet connection is needed."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from volseg.errors import ConfigError
from volseg.view.local_volume import sample_grey_range
from volseg.view.scene import Layer, scene
from volseg.view.sources import LayerSource, Role, find_layer_sources

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from volseg.storage import TargetPath

_GREY = (Role.RAW, Role.IMAGE)
_ALL_ADDRESSES = ("0.0.0.0", "::")


class Session:
    """A running viewer and its server; closing it, or leaving its `with` block, stops both.

    Attributes:
        url: the address to open in a browser.
        viewer: the `neuroglancer` viewer, whose state can be read and changed.
    """

    def __init__(self, server: Any, viewer: Any, url: str) -> None:
        self.url = url
        self.viewer = viewer
        self._server = server

    def close(self) -> None:
        """Stop the server; may be called again."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
            server.executor.shutdown()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def open_viewer(sources: Sequence[str], *, bind: str = "127.0.0.1", port: int = 0, host: str | None = None) -> Session:
    """Serve volumes and show them in Neuroglancer, one layer per volume or channel.

    The raw EM is drawn in grey, membrane maps as a colour over it with a slider for the threshold, labels as
    segments. A volume with a run record of volseg is a membrane map; the first of the others is the raw EM.
    Affinities are red, green and blue under the raw EM; the uncertainty of a map, hidden at first, goes from black
    through orange to white.

    Args:
        sources: paths of volumes of any format, or URLs; those of web servers are opened by Neuroglancer itself.
        bind: address to listen on; by default only this machine can connect.
        port: port of viewer and volumes; 0 for any free port.
        host: host name in the URLs; by default `bind`, or this machine's name if `bind` is all addresses.

    Raises:
        SourceError: a source is missing, or is not a volume that can be drawn.
        ConfigError: no source, an address or port that cannot be used, or Neuroglancer is not installed.
    """
    layer_sources = find_layer_sources(sources)
    serving = _import_serving()
    server = serving.start_server(bind, port)
    try:
        base = f"http://{_url_host(host or _host_name(bind))}:{server.port}"
        viewer = serving.create_viewer(server)
        volumes = {source.volume.folder: source for source in layer_sources if source.volume is not None}
        urls = {folder: _url(source, base, server, viewer, serving) for folder, source in volumes.items()}
        viewer.set_state(scene([_layer(source, urls) for source in layer_sources]))
    except BaseException:
        server.stop()
        raise
    return Session(server, viewer, f"{base}/v/{viewer.token}/")


def _import_serving() -> ModuleType:
    try:
        from volseg.view import serving  # noqa: PLC0415  # Neuroglancer is an optional dependency
    except ImportError as error:
        raise ConfigError(f'Neuroglancer is not installed ({error}); pip install "volseg[view]"') from error
    return serving


def _layer(source: LayerSource, urls: Mapping[TargetPath, str]) -> Layer:
    volume = source.volume
    if volume is None:
        return Layer(source, source.location)
    grey = sample_grey_range(volume, source.channel) if source.role in _GREY else None
    return Layer(source, urls[volume.folder], grey)


def _url(source: LayerSource, base: str, server: Any, viewer: Any, serving: ModuleType) -> str:
    """Serve a volume: the files of a Zarr, which the browser decodes, or else its voxels."""
    volume = source.volume
    assert volume is not None
    if volume.voxels is None:
        return f"{volume.format}://{base}{serving.serve_folder(server, volume.folder)}"
    are_labels = source.role is Role.LABELS
    return str(serving.serve_voxels(viewer, volume.voxels, volume.place, are_labels=are_labels))


def _host_name(bind: str) -> str:
    return socket.getfqdn() if bind in _ALL_ADDRESSES else bind


def _url_host(host: str) -> str:
    """Format a host for a URL: an IPv6 address is put in brackets.

    >>> _url_host("127.0.0.1"), _url_host("::1")
    ('127.0.0.1', '[::1]')
    """
    return f"[{host}]" if ":" in host else host
