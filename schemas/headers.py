"""Kafka headers as one value, for rows that only keep them: packed in one pass, and unpacked where somebody needs them."""

from __future__ import annotations

import struct

Headers = tuple[tuple[str, bytes], ...]

_SIZES = struct.Struct(">HI")
_pack = _SIZES.pack


def pack_headers(headers: Headers) -> bytes:
    """Names and values, each pair behind the sizes of both. Raises struct.error for a name of 64 KiB or more."""
    parts: list[bytes] = []
    for name, value in headers:
        key = name.encode()
        parts += (_pack(len(key), len(value)), key, value)
    return b"".join(parts)


def unpack_headers(packed: bytes) -> Headers:
    """The pairs. Raises struct.error for bytes that are cut off."""
    pairs, place = [], 0
    while place < len(packed):
        name_size, value_size = _SIZES.unpack_from(packed, place)
        middle = place + _SIZES.size + name_size
        pairs.append((packed[place + _SIZES.size : middle].decode(), packed[middle : middle + value_size]))
        place = middle + value_size
    return tuple(pairs)
