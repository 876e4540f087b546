"""HDF5: nothing outside the file is read, whatever its links and datasets say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from volseg.blocks import Box
from volseg.errors import SourceError
from volseg.storage.hdf5 import open_hdf5
from volseg.testing.factories import blobs

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (4, 8, 8)


def virtual(file: h5py.File, name: str, other: str, dataset: str) -> None:
    layout = h5py.VirtualLayout(shape=SHAPE, dtype="u1")
    layout[:] = h5py.VirtualSource(other, dataset, shape=SHAPE)
    file.create_virtual_dataset(name, layout)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hdf5") / "raw.h5"
    (path.parent / "secret.txt").write_bytes(b"s" * 256)
    with h5py.File(path.parent / "other.h5", "w") as file:
        file["raw"] = blobs(SHAPE)
    with h5py.File(path, "w") as file:
        file["raw"] = file["sub/raw"] = blobs(SHAPE)
        file["soft"], file["sub/relative"] = h5py.SoftLink("/raw"), h5py.SoftLink("raw")
        file["circle"], file["soft_to_link"] = h5py.SoftLink("/circle"), h5py.SoftLink("/link")
        file["link"], file["link_to_root"] = h5py.ExternalLink("other.h5", "/raw"), h5py.ExternalLink("other.h5", "/")
        file.create_dataset("outside", SHAPE, "u1", external=[("secret.txt", 0, 256)])
        virtual(file, "over_itself", ".", "raw")
        virtual(file, "over_virtual", ".", "over_itself")
        virtual(file, "over_other", "other.h5", "raw")
        virtual(file, "over_over_other", ".", "over_other")
        virtual(file, "over_link", ".", "link")
        virtual(file, "over_outside", ".", "outside")
        virtual(file, "over_nothing", ".", "lost")
        virtual(file, "ring", ".", "ring")
        virtual(file, "ring_of_two", ".", "ring_of_one")
        virtual(file, "ring_of_one", ".", "ring_of_two")
    return path


@pytest.mark.parametrize("name", ["raw", "soft", "sub/relative", "over_itself", "over_virtual"])
def test_links_and_virtual_datasets_inside_the_file_are_read(path: Path, name: str) -> None:
    np.testing.assert_array_equal(open_hdf5(f"{path}:{name}").read(Box.of_shape(SHAPE)), blobs(SHAPE))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("outside", "holds its voxels in .*secret.txt"),
        ("link", "is a link into other.h5"),
        ("link_to_root/raw", "is a link into other.h5"),
        ("soft_to_link", "is a link into other.h5"),
        ("over_other", "over_other is a virtual dataset over other.h5"),
        ("over_over_other", "over_other is a virtual dataset over other.h5"),
        ("over_link", "is a link into other.h5"),
        ("over_outside", "holds its voxels in .*secret.txt"),
        ("over_nothing", "is a virtual dataset over lost, which it lacks"),
        ("ring", "ring is a circle of virtual datasets"),
        ("ring_of_two", "is a circle of virtual datasets"),
    ],
)
def test_voxels_of_other_files_are_refused_with_the_way_out(path: Path, name: str, message: str) -> None:
    with pytest.raises(SourceError, match=f"{message}.*; copy the voxels into the file, such as with h5repack"):
        open_hdf5(f"{path}:{name}")


def test_a_circle_of_links_is_refused(path: Path) -> None:
    with pytest.raises(SourceError, match="circle is a circle of links"):
        open_hdf5(f"{path}:circle")


def test_groups_in_groups_without_end_are_not_searched(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "deep.h5", "w") as file:
        group = file
        for _ in range(300):
            group = group.create_group("a")
        group["raw"] = blobs(SHAPE)
    with pytest.raises(SourceError, match="has groups in groups 32 deep; name its dataset"):
        open_hdf5(str(tmp_path / "deep.h5"))
    assert open_hdf5(f"{tmp_path / 'deep.h5'}:{'a/' * 300}raw").shape == SHAPE
