"""The names of a table's columns: every kind of source brings them, and all are held to the same rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from actors.catalog.datasets import named
from actors.catalog.rows import COLUMNS_MAX
from schemas.errors import InvalidInput


def named_columns(cells: Sequence[str], name: str, where: str) -> list[str]:
    """The names that columns go by: stripped, and `column_<n>` for one without.

    Raises InvalidInput for too many columns or a name that occurs twice; `name` is the source, `where` what names them.
    """
    if len(cells) > COLUMNS_MAX:
        raise InvalidInput(f"{name} has {len(cells)} columns, the most is {COLUMNS_MAX}")
    header = [cell.strip() or f"column_{place}" for place, cell in enumerate(cells, 1)]
    if twice := sorted(column for column, times in Counter(header).items() if times > 1):
        raise InvalidInput(f"{name}: {where} names {named(twice)} more than once; give each column its own name")
    return header
