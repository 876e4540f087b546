"""TLS settings of a folder of certificates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from volseg.errors import ConfigError

if TYPE_CHECKING:
    from distributed.security import Security


def security_of(tls: str | None, *, workers: bool = False) -> Security | None:
    """TLS settings of a client; None without a folder, for Dask's own configuration.

    Args:
        tls: folder of the certificate authority `ca.pem`, and of this process's `cert.pem` and `key.pem`.
        workers: whether a scheduler of this process and its workers use the same files.

    Raises:
        ConfigError: a file is missing.
    """
    if tls is None:
        return None
    from distributed.security import Security  # noqa: PLC0415 - a serial run needs no Dask

    folder = Path(tls).absolute()
    files = {name: str(folder / f"{name}.pem") for name in ("ca", "cert", "key")}
    if missing := [name for name, path in files.items() if not Path(path).is_file()]:
        names = ", ".join(f"{name}.pem" for name in missing)
        raise ConfigError(f"--tls {tls} has no {names}; it is a folder of ca.pem, cert.pem and key.pem")
    roles = ("client", "scheduler", "worker") if workers else ("client",)
    return Security(
        require_encryption=True,
        tls_ca_file=files["ca"],
        **{f"tls_{role}_cert": files["cert"] for role in roles},
        **{f"tls_{role}_key": files["key"] for role in roles},
    )
