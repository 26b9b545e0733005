"""What a visitor of the tour sees: each event as it comes, the answer, and the same facts as they lie in Kafka."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ops.running import Entry
from ops.views.tasks import plain
from schemas.base import Envelope
from schemas.settings import Settings
from schemas.tasks import TaskEvent, TaskState

_COLOURS = ("magenta", "cyan", "green", "yellow")
_BAD = frozenset({TaskState.FAILED, TaskState.DEAD_LETTERED, TaskState.REFUSED})
_VALUE_CHARS = 200  # of a decoded record; the whole is one command away
_UNSAID = frozenset({*Envelope.model_fields, "instance", "seq", "registry_at"})
"""Fields that every record has, or that only a replay needs; they would push out what differs."""


class Stage:
    """Prints to a console; a quiet one shows nothing."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._colours: dict[str, str] = {}

    def step(self, what: str) -> None:
        """Begin a part of the tour."""
        self._console.print(f"\n[bold]{escape(what)}[/bold]", highlight=False)

    def started(self, entry: Entry, seconds: float) -> None:
        """Show what runs now."""
        table = Table("role", "pid", "address", show_edge=False, pad_edge=False)
        for member in entry.members:
            table.add_row(member.role, str(member.birth.pid), ", ".join(member.addresses))
        self._console.print(table)
        self._console.print(f"ready after {seconds:.1f} s", highlight=False)
        self._three_tasks("ms since submit")

    def rehearsing(self, agents: Sequence[str], seconds: float) -> None:
        """Show what there is where nothing was started."""
        self._console.print("offline: no Kafka, no Java, no network, no other process; topics in memory", highlight=False)
        self._console.print(f"coordinator, and the agents {', '.join(agents)}", highlight=False)
        self._console.print(f"ready after {seconds:.1f} s; from here on time is virtual, so nobody waits", highlight=False)
        self._three_tasks("ms of virtual time since submit")

    def _three_tasks(self, column: str) -> None:
        self.step("Three tasks, and what the coordinator decides about each, live from tasks.events")
        self._console.print(f"[dim]{column}[/dim]", highlight=False)

    def submitting(self, task_id: str, pattern: str, payload: Mapping[str, Any]) -> None:
        """Show a submit that is about to be made."""
        text = f"submit [bold]{escape(pattern)}[/bold] {escape(json.dumps(dict(payload)))}"
        self._line(task_id, 0.0, text)

    def event(self, event: TaskEvent, after_ms: float) -> None:
        """Show an event, and why it came to that."""
        before = str(event.from_state) if event.from_state else "new"
        state = f"[{'red' if event.to_state in _BAD else 'bold'}]{event.to_state}[/]"
        agent = f"  {event.agent_id}, attempt {event.attempt}" if event.agent_id else ""
        self._line(event.task_id, after_ms, f"{event.kind}: {before} -> {state}{escape(agent)}")
        decision = plain(event.decision)
        if isinstance(decision, dict) and decision.get("reason"):
            self._because(str(decision["reason"]))
        if event.error is not None:
            self._because(f"{event.error.code}: {event.error.message}")

    def waiting(self, task_id: str, grace_s: float) -> None:
        """Say why the tour pauses."""
        text = f"an agent for its pattern may still come, the coordinator gives it {grace_s:g} s (routing.grace_seconds)"
        line = f"[dim]{'':10}{task_id} has no answer yet: {text}[/dim]"
        self._console.print(line, highlight=False, soft_wrap=True)

    def result(self, result: Mapping[str, Any], picture: Path) -> None:
        """Show the anomalies and where the picture is."""
        self.step(f"The answer: {result['count']} unusual months, judged by {result['method']}")
        table = Table(show_edge=False, pad_edge=False)
        for name in ("month", "change", "expected", "score", "severity"):
            table.add_column(name, justify="right" if name in ("change", "expected", "score") else "left")
        for each in result["anomalies"]:
            score = "" if each["score"] is None else f"{each['score']:.2f}"
            cells = (each["timestamp"][:7], f"{each['value']:.0f}", f"{each['expected']:.1f}", score, each["severity"])
            table.add_row(*cells)
        self._console.print(table)
        self._console.print("(thousand jobs; U.S. Bureau of Labor Statistics, public domain)", highlight=False)
        self._console.print(f"picture: {picture}", highlight=False, soft_wrap=True)

    def topics(
        self,
        topics: Mapping[str, Sequence[Mapping[str, Any]]],
        where: str = "as records in Kafka (troupe topics tail TOPIC)",
    ) -> None:
        """Show the last records of each topic."""
        self.step(f"The same facts, {where}")
        for name, records in topics.items():
            self._console.print(f"[bold]{name}[/bold]", highlight=False)
            for record in records:
                schema = record["schema"]["name"] if record["schema"] else "-"
                place = f"[{record['partition']}]@{record['offset']}"
                head = f"  {place} key={record['key']} {schema} "
                line = f"[cyan]{escape(head)}[/cyan]{escape(_short(record['value']))}"
                self._console.print(line, highlight=False, soft_wrap=True)

    def other_tools(self, settings: Settings, stays: bool) -> None:
        """Say how to look with tools that are not ours."""
        address = settings.kafka.bootstrap_servers if stays else "HOST:PORT"
        self.step("Look with any Kafka tool" + ("" if stays else " while a system runs (troupe up says the address)"))
        for line in tools(address):
            self._console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
        if stays:
            self._console.print("\nIt all runs until you press Ctrl-C.", highlight=False)

    def stopped(self, left: Sequence[int], seconds: float) -> None:
        """The last line."""
        what = f"still running: {', '.join(map(str, left))}" if left else "nothing is left running"
        self._console.print(f"{what}; {seconds:.1f} s in all", highlight=False)

    def rehearsed(self, seconds: float) -> None:
        """The last lines of a tour without Kafka."""
        self.step("The same on a real Kafka, with processes that can be killed: troupe demo (without --offline)")
        self._console.print(f"nothing was started, so nothing is left running; {seconds:.1f} s in all", highlight=False)

    def _line(self, task_id: str, after_ms: float, text: str) -> None:
        colour = self._colours.setdefault(task_id, _COLOURS[len(self._colours) % len(_COLOURS)])
        line = f"{after_ms:9.1f} [{colour}]{task_id:<13}[/{colour}] {text}"
        self._console.print(line, highlight=False, soft_wrap=True)

    def _because(self, reason: str) -> None:
        self._console.print(f"[dim]{'':24}{escape(reason)}[/dim]", highlight=False, soft_wrap=True)


def tools(address: str) -> list[str]:
    """Commands of other people's tools that work on our topics; values are Avro in Confluent framing."""
    return [
        f"kcat -b {address} -L                                            # topics and partitions",
        f"kcat -b {address} -C -t tasks.events -o -5 -e -f '%k %o %h\\n'   # keys, offsets, headers",
        f"kafka-console-consumer --bootstrap-server {address} --topic tasks.events --from-beginning",
        f"kaskade consumer -b {address} -t tasks.events -k string            # or: kaskade admin -b {address}",
    ]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        value = {name: item for name, item in value.items() if name not in _UNSAID and item not in (None, "", [], {})}
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _VALUE_CHARS else text[: _VALUE_CHARS - 1] + "…"
