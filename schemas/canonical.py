"""Canonical JSON and its hash, so that two submits can be compared whatever tool wrote them (RFC 8785).

The common case, objects with ASCII keys and everyday numbers, is what any serializer with sorted keys writes already: orjson
for a text, `json.dumps` for a value, at a thirtieth and a tenth of the time of the general one, which is asked only where
they could differ.
"""

from __future__ import annotations

import hashlib
import json
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]
from typing import Any

import orjson
import rfc8785

from schemas.errors import InvalidInput

_SAFE_INT = 2**53


def load_json(text: str, where: str) -> Any:
    """The value of a JSON text; NaN, infinities and nonsense raise InvalidInput naming `where`."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where}: not valid JSON: {error}", code="invalid_request") from error


def is_object(text: str) -> bool:
    """Whether a JSON text is an object's. Raises InvalidInput for one that is no JSON."""
    try:
        return type(orjson.loads(text)) is dict
    except ValueError:
        return isinstance(load_json(text, "result"), dict)


def canonical_object(text: str, where: str) -> bytes:
    """RFC 8785 text of a JSON text, which must be an object's; else raises InvalidInput naming `where`."""
    try:
        value = orjson.loads(text)
        if type(value) is dict and _is_plain(value):
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (ValueError, TypeError, RecursionError):
        pass  # it is more strict than the standard library in places, and writes 254 levels only
    value = load_json(text, where)
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: must be a JSON object")
    try:
        return canonical(value).encode()
    except (InvalidInput, RecursionError) as error:
        raise InvalidInput(f"{where}: {error}") from error


def canonical(value: Any) -> str:
    """RFC 8785 text of a JSON value; raises InvalidInput where it has none (a lone surrogate, say).

    That form knows doubles only. Payloads with larger integers (64-bit ids) are common and must keep them apart, so
    those are written digit by digit, in the same order of keys.
    """
    if _is_plain(value):
        return _sorted(value)
    try:
        return rfc8785.dumps(value).decode()
    except rfc8785.IntegerDomainError:
        return _sorted(value)
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise InvalidInput(f"no canonical JSON: {error}", code="invalid_request") from error


def digest(data: bytes) -> str:
    """SHA-256 in lower case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _sorted(value: Any) -> str:
    try:
        text = "".join(_pieces(value, 0))
        if not text.isascii():
            text.encode()
    except ValueError as error:  # a number beyond all doubles, half a character
        raise InvalidInput(f"no canonical JSON: {error}", code="invalid_request") from error
    return text


def _is_plain(value: Any) -> bool:
    """Whether json.dumps writes the canonical form: ASCII keys (their order is the same in UTF-16), safe integers."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is dict:
        return all(key.isascii() and (type(item) is str or _is_plain(item)) for key, item in value.items())
    if kind is list:
        return all(map(_is_plain, value))
    if kind is int:
        return bool(-_SAFE_INT < value < _SAFE_INT)
    # repr is the shortest form too, but writes 1.0 and 1e+16 otherwise than the standard
    return kind is float and 1e-4 <= abs(value) < 1e16 and not value.is_integer()


def _refuse_type(value: Any) -> Any:
    raise InvalidInput(f"no canonical JSON: {type(value).__name__}", code="invalid_request")


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


# Made once: json.loads and json.dumps with options make new ones at each call, which costs as much as a small object.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
# So is what JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False) makes at each call of its encode().
_pieces = c_make_encoder(None, _refuse_type, encode_basestring, None, ":", ",", True, False, False)
