"""Files of metadata, which are small: not a pipe, a device, or a hundred gigabytes."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from volseg.storage.object_path import ObjectPath

if TYPE_CHECKING:
    from volseg.storage.object_path import TargetPath

MAX_BYTES = 64 << 20


def read_metadata(path: TargetPath) -> bytes:
    """The content of a small file.

    Raises:
        OSError: it is not there, no regular file, or too large.
    """
    if isinstance(path, ObjectPath):
        return path.read_bytes()
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer would wait
    with open(number, "rb") as file:  # noqa: PTH123 - of a number
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "no regular file", str(path))
        if status.st_size > MAX_BYTES:
            raise OSError(errno.EFBIG, f"{status.st_size} bytes, more than any metadata have", str(path))
        return file.read(MAX_BYTES)
