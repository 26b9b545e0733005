"""The payload of `troupe submit`: a JSON object on the command line, in a file, or from standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ops.cli.errors import WrongUse

SHOWN_CHARS = 40
"""Of a payload that is refused."""


def read_payload(text: str | None) -> dict[str, Any]:
    """The JSON object that the option means: `@FILE`, `-` for standard input, else the text itself; {} without one.

    Raises WrongUse if there is no such file or if it is no JSON object; NaN and a key that is there twice are no JSON.
    """
    if text is None:
        return {}
    if text == "-":
        return _parsed(sys.stdin.read(), "standard input")
    if not text.startswith("@"):
        return _parsed(text, "--payload")
    path = Path(text[1:]).expanduser()
    try:
        return _parsed(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(f"Cannot read the payload from {path}: {error}", hint="--payload @FILE reads a file") from error


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise WrongUse(
            f"The payload ({where}) is not JSON: {error}",
            hint="""write it as '{"name": 1}', as @FILE, or as - to read standard input""",
        ) from error
    if not isinstance(found, dict):  # the task would fail with `invalid_request`, which only who waits for it sees
        raise WrongUse(
            f"The payload ({where}) is no JSON object: {json.dumps(found, ensure_ascii=False)[:SHOWN_CHARS]}",
            hint="""an agent's input has names: write it as '{"value": 1}'""",
        )
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key '{key}' is there twice")
        found[key] = value
    return found


def _refused(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")
