"""Several runs of one measurement as one: median and range, since a single figure of a shared machine says little."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

LEFT_OUT = ("machine", "versions", "durability", "load_average", "handler_work")
"""What a document says besides figures."""


def flat(document: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    """Every figure of a run's document with its path, `cpu_us_per_task.coordinator`; what was not seen is left out."""
    for name, value in document.items():
        if name in LEFT_OUT:
            continue
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield path + name, float(value)


def summary(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`{runs, median, least, most}`: the documents as they are, and three figures for each path that all of them have."""
    figures = [dict(flat(document)) for document in documents]
    common = [path for path in figures[0] if all(path in each for each in figures)]
    found: dict[str, Any] = {"runs": list(documents), "median": {}, "least": {}, "most": {}}
    for path in common:
        values = [each[path] for each in figures]
        found["median"][path], found["least"][path], found["most"][path] = median(values), min(values), max(values)
    return found


def rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Path, median, range and the single runs, as a person reads them; what was the same in all runs is left out."""
    figures = [dict(flat(document)) for document in found["runs"]]
    for path, middle in found["median"].items():
        least, most = found["least"][path], found["most"][path]
        if least == most:
            continue
        yield (
            path,
            f"{middle:,.4g}",
            f"{least:,.4g} to {most:,.4g}",
            ", ".join(f"{each[path]:,.4g}" for each in figures),
        )
