"""The canonical form of JSON: equal for equal bodies, apart for others, whatever tool wrote them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from schemas.canonical import canonical, canonical_object, digest, is_object, load_json
from schemas.errors import InvalidInput

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(VALUES)
def test_it_is_the_standard_form(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value).decode()


@given(VALUES)
def test_it_does_not_depend_on_how_the_text_was_written(value: Any) -> None:
    assert canonical(load_json(json.dumps(value, indent=2), "payload")) == canonical(value)


def test_integers_beyond_doubles_are_kept_apart() -> None:
    assert canonical({"id": 2**63}) != canonical({"id": 2**63 + 1})
    assert canonical({"b": 2**63, "a": 1}) == '{"a":1,"b":9223372036854775808}'


@pytest.mark.parametrize("text", ["NaN", '{"x": Infinity}', "{", "[" * 200_000])
def test_nonsense_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput, match="payload"):
        load_json(text, "payload")


def test_half_a_character_has_no_form() -> None:
    with pytest.raises(InvalidInput):
        canonical({"x": "\ud800"})


def test_the_digest_is_sha256() -> None:
    assert digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_number_beyond_all_doubles_has_no_form() -> None:
    with pytest.raises(InvalidInput):
        canonical({"a": 123456789012345678901, "b": float("inf")})


@given(VALUES)
def test_of_a_text_it_is_the_same(value: Any) -> None:
    assert canonical_object(json.dumps({"a": value}), "payload") == canonical({"a": value}).encode()
    assert is_object(json.dumps({"a": value})) and not is_object(json.dumps([value]))


@pytest.mark.parametrize("depth", [253, 254, 255, 300])
def test_a_deep_text_has_a_form(depth: int) -> None:
    text = '{"a":' * depth + "1" + "}" * depth
    assert canonical_object(text, "payload") == text.encode()


@pytest.mark.parametrize("depth", [900, 5_000, 100_000])
def test_a_text_without_bottom_is_refused_by_name(depth: int) -> None:
    with pytest.raises(InvalidInput, match="payload"):
        canonical_object('{"a":' * depth + "1" + "}" * depth, "payload")
