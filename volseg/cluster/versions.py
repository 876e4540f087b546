"""Package versions of the driver and of its workers, compared before a run."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from volseg.errors import ClusterError
from volseg.version import __version__

if TYPE_CHECKING:
    from volseg.cluster.executor import Executor
    from volseg.cluster.progress import Progress

PACKAGES = ("volseg", "torch", "numpy", "zarr", "zarrs", "numcodecs", "dask", "distributed")
"""Packages that decide the bytes of a map, or whether messages are understood."""


def package_versions() -> dict[str, str]:
    """Version of each package in this process; packages that are not installed are left out."""
    versions = {"volseg": __version__}
    for name in PACKAGES[1:]:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def refuse_other_versions(executor: Executor, progress: Progress) -> None:
    """Compare the packages of every worker with those of the driver.

    Args:
        executor: whose workers are asked.
        progress: receives a note for each package, other than volseg, whose versions differ. A driver needs no torch.

    Raises:
        ClusterError: a worker has another version of volseg, or cannot import it.
    """
    driver = package_versions()
    try:
        workers: list[dict[str, str]] = executor.run_on_all(package_versions)
    except ImportError as error:
        raise ClusterError(
            f"workers of {executor.where} cannot import volseg ({error}); install version {__version__} there"
        ) from None
    for name in PACKAGES:
        versions = {worker.get(name, "none") for worker in workers}
        if versions <= {driver.get(name)}:
            continue
        theirs = " and ".join(sorted(versions))
        if name == "volseg":
            raise ClusterError(
                f"workers of {executor.where} have volseg {theirs}, and this process {__version__}; install one "
                "version everywhere and restart the workers"
            )
        if name in driver or len(versions) > 1:
            progress.note(f"{name} {theirs} on the workers of {executor.where}, {driver.get(name, 'none')} here")
