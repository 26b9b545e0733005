"""What a run found, as one value: JSON for programs, rows of a table for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ops.bench.ledger import Ledger, milliseconds, percentile

SHARES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}

PerRole = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Counts:
    """What the ledger says of the measured tasks; rates per second, times in ms, None where nothing was seen.

    Times run from the moment at which a submit was made, or was planned in an open loop: ack to the broker's
    confirmation, handler to the handler's begin, result to the moment at which the submitter has read the outcome.
    rate: of the open loop, None at saturation. late: by how much the submitter itself was behind its plan.
    """

    tasks: int
    payload_bytes: int
    rate: float | None
    accepted_per_s: float
    tasks_per_s: float
    lost: int
    duplicate_results: int
    ack_p50_ms: float | None
    ack_p99_ms: float | None
    ack_p999_ms: float | None
    handler_p50_ms: float | None
    handler_p99_ms: float | None
    handler_p999_ms: float | None
    result_p50_ms: float | None
    result_p99_ms: float | None
    result_p999_ms: float | None
    late_p50_ms: float | None
    late_p99_ms: float | None
    late_p999_ms: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """Counts, costs, and what they were measured on.

    in_flight: tasks without an outcome at any time, None for an open loop. coordinators: how many shared the partitions.
    handler_work: ms that each handler sleeps or computes. cpu_us_per_task and rss_mb have an entry for each role, None for
    one that runs elsewhere; so has log_bytes_per_task.
    """

    counts: Counts
    in_flight: int | None
    coordinators: int
    handler_work: dict[str, float]
    cpu_us_per_task: PerRole
    rss_mb: PerRole
    log_bytes_per_task: float | None
    machine: dict[str, Any]
    versions: dict[str, str | None]
    durability: dict[str, Any]
    load_average: list[float]

    def document(self) -> dict[str, Any]:
        """The JSON form: the counts beside the rest, on one level."""
        return {**asdict(self.counts), **{name: value for name, value in asdict(self).items() if name != "counts"}}

    def rows(self) -> Iterator[tuple[str, str]]:
        """Label and value, as a person reads them."""
        counts = self.counts
        yield "tasks", f"{counts.tasks:,} with {counts.payload_bytes:,} B of payload"
        asleep, computing = self.handler_work["sleep_ms"], self.handler_work["cpu_ms"]
        if asleep or computing:
            yield "each handler", f"sleeps {asleep:g} ms" if asleep else f"computes {computing:g} ms"
        if counts.rate is not None:
            yield "submitted", f"{counts.rate:,.0f} tasks/s, an open loop; times are counted from the plan"
        if self.in_flight is not None:
            yield "in flight", f"{self.in_flight:,}"
        yield "coordinators", str(self.coordinators)
        yield "finished", f"{counts.tasks_per_s:,.0f} tasks/s"
        yield "accepted", f"{counts.accepted_per_s:,.0f} tasks/s"
        yield "lost, duplicate results", f"{counts.lost}, {counts.duplicate_results}"
        for what in ("ack", "handler", "result"):
            yield f"submit to {what}, p50 / p99 / p99.9", _times(counts, what)
        if counts.rate is not None:
            yield "submitter behind its plan, p50 / p99 / p99.9", _times(counts, "late")
        for role, cost in self.cpu_us_per_task.items():
            yield f"{role}: CPU per task, peak memory", f"{_text(cost)} us, {_text(self.rss_mb[role])} MiB"
        yield "log per task", f"{_text(self.log_bytes_per_task)} B"
        yield "machine", f"{self.machine['cores']} x {self.machine['cpu']}, {self.machine['memory_gb']} GiB"
        yield "load average at the start", " ".join(f"{each:.2f}" for each in self.load_average)
        yield "durability", ", ".join(f"{name}={value}" for name, value in self.durability.items())
        yield "versions", ", ".join(f"{name} {value}" for name, value in self.versions.items() if value)


def counts(ledger: Ledger, numbers: range, payload_bytes: int, rate: float | None = None) -> Counts:
    """Judge the measured tasks of a ledger. Duplicates are counted over the whole run, warm-up too."""
    begin = min((at for n in numbers if (at := ledger.submitted[n])), default=0)
    last_ack = max((ledger.acked[n] for n in numbers), default=0)
    last_end = max((ledger.ended[n] for n in numbers), default=0)
    finished = sum(1 for n in numbers if ledger.ended[n])
    times = {
        "ack": milliseconds(ledger.submitted, ledger.acked, numbers),
        "handler": milliseconds(ledger.submitted, ledger.began, numbers),
        "result": milliseconds(ledger.submitted, ledger.ended, numbers),
        "late": milliseconds(ledger.submitted, ledger.sent, numbers),
    }
    found = {f"{what}_{name}_ms": _ms(each, share) for what, each in times.items() for name, share in SHARES.items()}
    return Counts(
        tasks=len(numbers),
        payload_bytes=payload_bytes,
        rate=rate,
        accepted_per_s=_rate(ledger.accepted(numbers), begin, last_ack),
        tasks_per_s=_rate(finished, begin, last_end),
        lost=ledger.lost(numbers),
        duplicate_results=ledger.duplicates,
        **found,
    )


def _rate(count: int, begin: int, end: int) -> float:
    return round(count * 1e6 / (end - begin), 1) if end > begin else 0.0


def _ms(ordered: list[float], share: float) -> float | None:
    found = percentile(ordered, share)
    return None if found is None else round(found, 2)


def _times(counts: Counts, what: str) -> str:
    return " / ".join(_text(getattr(counts, f"{what}_{name}_ms")) for name in SHARES) + " ms"


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.1f}"
