"""Where a key is at home: Kafka's own partitioner, so that any client that keeps to it writes to the right partition.

The hash is MurmurHash2 as in Kafka's `Utils.murmur2` (A. Appleby, public domain algorithm). aiokafka has it too, byte by
byte; a coordinator asks for it at every submit, so this one takes the key word by word and costs a quarter.
"""

from __future__ import annotations

import struct
from functools import lru_cache

_SEED, _M, _MASK = 0x9747B28C, 0x5BD1E995, 0xFFFFFFFF


@lru_cache(maxsize=64)
def _words(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}I")


def murmur2(data: bytes) -> int:
    """The 32-bit hash of a key."""
    length = len(data)
    hashed = _SEED ^ length
    whole = length // 4
    for word in _words(whole).unpack_from(data):
        word = word * _M & _MASK
        hashed = (hashed * _M & _MASK) ^ ((word ^ word >> 24) * _M & _MASK)
    if rest := data[whole * 4 :]:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * _M & _MASK
    hashed = (hashed ^ hashed >> 13) * _M & _MASK
    return hashed ^ hashed >> 15


def home(key: str, partitions: int) -> int:
    """Partition at which records of this key belong, as every Kafka client with the Java partitioner chooses it."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions
