"""Canonical JSON and its hash, so that two submits can be compared whatever tool wrote them (RFC 8785).

The common case, objects with ASCII keys and everyday numbers, is what `json.dumps` with sorted keys writes already; it takes
a tenth of the time of the general serializer, which is asked only where the two could differ.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import rfc8785

from schemas.errors import InvalidInput

_SAFE_INT = 2**53


def load_json(text: str, where: str) -> Any:
    """The value of a JSON text; NaN, infinities and nonsense raise InvalidInput naming `where`."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where}: not valid JSON: {error}", code="invalid_request") from error


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value; raises InvalidInput where it has none (a lone surrogate, say).

    That form knows doubles only. Payloads with larger integers (64-bit ids) are common and must keep them apart, so
    those are written digit by digit, in the same order of keys.
    """
    if _is_plain(value):
        return _sorted(value)
    try:
        return rfc8785.dumps(value)
    except rfc8785.IntegerDomainError:
        return _sorted(value)
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise InvalidInput(f"no canonical JSON: {error}", code="invalid_request") from error


def digest(data: bytes) -> str:
    """SHA-256 in lower case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _sorted(value: Any) -> bytes:
    try:
        return _ENCODER.encode(value).encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"no canonical JSON: {error}", code="invalid_request") from error


def _is_plain(value: Any) -> bool:
    """Whether json.dumps writes the canonical form: ASCII keys (their order is the same in UTF-16), safe integers."""
    if value is None or isinstance(value, (str, bool)):
        return True
    if isinstance(value, int):
        return -_SAFE_INT < value < _SAFE_INT
    if isinstance(value, float):  # repr is the shortest form too, but writes 1.0 and 1e+16 otherwise than the standard
        return 1e-4 <= abs(value) < 1e16 and not value.is_integer()
    if isinstance(value, dict):
        return all(key.isascii() and _is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    return False


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


# Made once: json.loads and json.dumps with options make new ones at each call, which costs as much as a small object.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
