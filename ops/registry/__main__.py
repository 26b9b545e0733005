"""`python -m ops.registry`: write the schema files of records that changed, to be looked at and committed."""

from __future__ import annotations

from pathlib import Path

from ops.registry.avsc import write_avsc
from topology import troupe

DIRECTORY = Path(__file__).resolve().parents[2] / "schemas" / "avsc"


def main() -> None:
    """Write what is new and say which files those are."""
    written = write_avsc(troupe().models(), DIRECTORY)
    for path in written:
        print(path.relative_to(DIRECTORY))
    print(f"{len(written)} schema files written" if written else "all schema files are as the records")


if __name__ == "__main__":
    main()
