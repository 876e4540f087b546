"""`volseg view`."""

from __future__ import annotations

import threading
import webbrowser

import click


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--bind", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port to serve on.  [default: any free one]")
@click.option("--host", help="Name by which browsers reach this machine, where it is not that address.")
@click.option("--no-browser", is_flag=True, help="Print the address only.")
def view(sources: tuple[str, ...], bind: str, port: int, host: str | None, no_browser: bool) -> None:
    """Open volumes in Neuroglancer: raw EM first, then probability maps or labels.

    A probability map is laid over the raw volume in colour, with a threshold slider. Each channel of a map is a layer:
    affinities are red, green and blue, and of other classes the one called membrane is shown at first. A map's
    uncertainty is a hidden layer; click its name. Everything is served from this machine and works without internet;
    stop it with Ctrl-C.

    \b
    Examples:
      volseg view raw.zarr membrane.zarr
      volseg view raw.zarr membrane.zarr --no-browser --port 8000
      volseg view raw.zarr membrane.zarr/uncertainty
    """
    from volseg.view import open_viewer

    with open_viewer(sources, bind=bind, port=port, host=host) as session:
        click.echo(session.url)
        click.echo("Ctrl-C stops it.", err=True)
        if not no_browser:
            webbrowser.open(session.url)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
