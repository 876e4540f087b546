"""`volseg view`."""

from __future__ import annotations

import threading
import webbrowser

import click


@click.command(short_help="Open volumes in Neuroglancer.")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--bind", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="N", default=0, help="Port to serve on.  [default: a free one]"
)
@click.option("--host", metavar="NAME", help="Host name in the printed URL, if it is not the address.")
@click.option("--no-browser", is_flag=True, help="Print the URL only.")
def view(sources: tuple[str, ...], bind: str, port: int, host: str | None, no_browser: bool) -> None:
    """Open volumes in Neuroglancer: raw EM first, then probability maps or labels.

    A SOURCE is a volume of any format that `volseg predict` reads. The browser reads a Zarr, and a URL, by itself; this
    machine decodes the others.

    A probability map is drawn over the raw volume in colour, with a threshold slider. Each channel is a layer:
    affinities are red, green and blue; of other classes, only the one called membrane is visible at first. The
    uncertainty of a map is a hidden layer; click its name to show it. This machine serves everything, without
    internet, until Ctrl-C.

    \b
    Examples:
      volseg view raw.zarr membrane.zarr
      volseg view raw.zarr membrane.zarr --no-browser --port 8000
      volseg view raw.zarr membrane.zarr/uncertainty
    """
    from volseg.view import open_viewer

    with open_viewer(sources, bind=bind, port=port, host=host) as session:
        click.echo(session.url)
        click.echo("Ctrl-C stops the server.", err=True)
        if not no_browser:
            webbrowser.open(session.url)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
