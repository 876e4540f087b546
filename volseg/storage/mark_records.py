"""Records of a journal as numpy arrays, and their checksums: many at once, at 0.1 microseconds each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECORD_BYTES = 72
MARK_RECORD = np.dtype(
    [
        ("kind", "u1"),
        ("reason", "u1"),
        ("attempt", "<u2"),
        ("worker", "<u4"),
        ("block", "<u8"),
        ("bytes", "<u8"),
        ("seconds", "<f4"),
        ("absent", "<u4"),
        ("voxels", "V16"),
        ("files", "V16"),
        ("checksum", "<u8"),
    ]
)
"""A mark: kind, numbers of the texts, attempt, block, bytes, seconds, absent chunks, two digests, checksum."""
_ROWS = 1 << 13
"""Records at a time, whose columns fit the processor's cache."""
_START = np.uint64(64 * 0x9E3779B185EBCA87 % 2**64)
_AVALANCHE = np.uint64(0x165667919E3779F9)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_SECRET = np.frombuffer(
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
        "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    ),
    "<u8",
)
"""The first 64 bytes of XXH3's secret."""


def records_of(content: bytes) -> NDArray[np.void]:
    """The whole records of some bytes, as `MARK_RECORD`, without a copy."""
    return np.frombuffer(content, MARK_RECORD, len(content) // RECORD_BYTES)


def checksums(records: NDArray[np.void]) -> NDArray[np.uint64]:
    """xxh3_64 of the bytes of each record before its checksum.

    >>> from xxhash import xxh3_64_intdigest
    >>> content = bytes(range(72))
    >>> int(checksums(records_of(content))[0]) == xxh3_64_intdigest(content[:64])
    True
    """
    words = records.view("<u8").reshape(-1, RECORD_BYTES // 8)
    result = np.empty(len(words), np.uint64)
    for start in range(0, len(words), _ROWS):
        columns = np.ascontiguousarray(words[start : start + _ROWS, :8].T)
        total = np.full(columns.shape[1], _START)
        for pair, key in ((2, 4), (4, 6), (0, 0), (6, 2)):
            total += _folded_product(columns[pair] ^ _SECRET[key], columns[pair + 1] ^ _SECRET[key + 1])
        total ^= total >> np.uint64(37)
        total *= _AVALANCHE
        result[start : start + _ROWS] = total ^ (total >> _HALF)
    return result


def _folded_product(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Lower half of the products of 128 bits, xor their upper half."""
    a_low, a_high, b_low, b_high = a & _LOW, a >> _HALF, b & _LOW, b >> _HALF
    high_low = a_high * b_low
    cross = ((a_low * b_low) >> _HALF) + (high_low & _LOW) + a_low * b_high
    folded: NDArray[Any] = (a * b) ^ ((high_low >> _HALF) + (cross >> _HALF) + a_high * b_high)
    return folded
