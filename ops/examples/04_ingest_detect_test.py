"""04: three agents that come with troupe, one after the other: ingest, detect, and make tests.

Ten years of published employment figures become a data set; the months that stand out are found in it; and the tests for
whoever reads that data set next are made from its columns. The data stay on disk: what goes from task to task is a
reference with a checksum. Nothing but `troupe up` must run.

    python ops/examples/04_ingest_detect_test.py

prints

    ingested 120 months, 0 rejected, into a data set of 120 rows
    2008-11 changed by -759 thousand, expected were 78.5 (critical)
    2008-12 changed by -707 thousand, expected were 78 (warning)
    2009-01 changed by -787 thousand, expected were 77.5 (warning)
    2009-02 changed by -704 thousand, expected were 77 (warning)
    2009-03 changed by -802 thousand, expected were 68 (warning)
    2009-04 changed by -704 thousand, expected were 59 (warning)
    90 tests, 90 passed; the first of each kind:
      valid: an ordinary row
      boundary: month: earliest
      invalid: month: no date-time
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ops.cli.options import running_settings
from ops.client import Client
from ops.examples.start import start

FIGURES = Path(__file__).parent / "data" / "us-employment.csv"


async def ask(client: Client, pattern: str, payload: dict[str, Any]) -> Any:
    return await client.result(await client.submit(pattern=pattern, payload=payload))


async def main() -> None:
    async with Client(running_settings()) as client:
        ingested = await ask(client, "ingest_data", {"csv": FIGURES.read_text(), "tables": ["employment"]})
        table, data_ref = ingested["tables"][0], ingested["data_ref"]
        print(
            f"ingested {table['rows_mapped']} months, {table['rows_rejected']} rejected, "
            f"into a data set of {data_ref['rows']} rows"
        )
        found = await ask(
            client, "detect_anomalies", {"data_ref": data_ref, "field": "nonfarm_change", "time_field": "month"}
        )
        for each in found["anomalies"]:
            print(
                f"{each['timestamp'][:7]} changed by {each['value']:.0f} thousand, "
                f"expected were {each['expected']:g} ({each['severity']})"
            )
        tests = await ask(client, "generate_tests", {"data_ref": data_ref, "options": {"TestCount": 90}})
        print(f"{tests['generated']} tests, {tests['passed']} passed; the first of each kind:")
        for case in tests["cases"][:3]:
            print(f"  {case['kind']}: {case['property']}")


if __name__ == "__main__":
    start(main)
