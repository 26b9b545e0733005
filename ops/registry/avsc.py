"""The schemas as files, numbered and append-only, so that a change of a record shows in review and old logs stay
readable.

`schemas/avsc/<subject>/<n>.avsc` is written from the models and checked in. The numbers serve as schema ids where
there is no registry: in the in-memory runtime and in replay.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from schemas.avro import avro_schema
from schemas.errors import SchemaError


def write_avsc(models_by_subject: Mapping[str, type[BaseModel]], directory: Path) -> list[Path]:
    """Write the next file of each subject whose newest file differs from its model; return the files written."""
    known = read_avsc(directory)
    written: list[Path] = []
    for subject, model in sorted(models_by_subject.items()):
        schema, versions = avro_schema(model), known.get(subject, {})
        newest = max(versions, default=0)
        if versions.get(newest) == schema:
            continue
        path = directory / subject / f"{newest + 1}.avsc"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(avsc_text(schema), encoding="utf-8")
        written.append(path)
    return written


def read_avsc(directory: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Return `{subject: {n: schema}}`, both sorted; empty without the directory. Raises SchemaError naming the file."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    paths = [path for path in directory.glob("*/*.avsc") if path.is_file()]
    for path in sorted(paths, key=lambda path: (path.parent.name, len(path.stem), path.stem)):
        try:
            number, schema = int(path.stem), json.loads(path.read_text(encoding="utf-8"))
        except ValueError as wrong:
            raise SchemaError(f"{path}: not a numbered Avro schema: {wrong}") from wrong
        if number < 1 or not isinstance(schema, dict):
            raise SchemaError(f"{path}: numbers begin with 1, and the schema is an object")
        found.setdefault(path.parent.name, {})[number] = schema
    return found


def avsc_text(schema: Mapping[str, Any]) -> str:
    """Return the text of a file: indented, in the order of the schema, one newline at the end."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
