"""The local store is damaged, deleted, old or another's: it is made anew from the changelog, said in one line, and right."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import rocksdict

from streams.runtime.exits import EXIT_REBUILD
from streams.runtime.store import WRITTEN_KEY
from tests.faults.harness import Run, run

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(900)]

Endured = Callable[[dict], None]
Damage = Callable[[list[Path], random.Random], None]


def _flip(pattern: str) -> Damage:
    """Turn bytes in the newest file of each partition that matches."""

    def damage(partitions: list[Path], rng: random.Random) -> None:
        for directory in partitions:
            for file in sorted(directory.glob(pattern))[-1:]:
                data = bytearray(file.read_bytes())
                for at in rng.sample(range(len(data)), min(len(data), 40)):
                    data[at] ^= 0xFF
                file.write_bytes(data)

    return damage


def _truncate(pattern: str) -> Damage:
    def damage(partitions: list[Path], rng: random.Random) -> None:
        for directory in partitions:
            for file in directory.glob(pattern):
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return damage


def _delete(pattern: str) -> Damage:
    def damage(partitions: list[Path], rng: random.Random) -> None:
        for directory in partitions:
            for file in directory.glob(pattern):
                file.unlink()

    return damage


def _swap(partitions: list[Path], rng: random.Random) -> None:
    """The stores of two partitions in each other's place, as after a restore gone wrong."""
    by_name = {path.name: path for path in partitions}
    one, other, spare = by_name["tasks-0.db"], by_name["tasks-1.db"], partitions[0].parent / "spare"
    one.rename(spare)
    other.rename(one)
    spare.rename(other)


def _outdate(partitions: list[Path], rng: random.Random) -> None:
    """As if they had been written two days ago."""
    for path in partitions:
        database = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
        database[WRITTEN_KEY] = (1).to_bytes(8, "big")
        database.close()


SAID, SILENT = True, False

DAMAGES: dict[str, tuple[Damage, bool]] = {
    "sst flipped": (_flip("*.sst"), SAID),
    "sst truncated": (_truncate("*.sst"), SAID),
    "sst deleted": (_delete("*.sst"), SAID),
    "MANIFEST flipped": (_flip("MANIFEST-*"), SAID),
    "MANIFEST truncated": (_truncate("MANIFEST-*"), SAID),
    "CURRENT deleted": (_delete("CURRENT"), SAID),
    "config flipped": (_flip("rocksdict-config.json"), SILENT),  # not read where options are given
    "partitions swapped": (_swap, SAID),
    "two days old": (_outdate, SAID),
}
ON_ROWS = ("sst flipped", "sst truncated", "sst deleted", "partitions swapped", "two days old")
SHORT = ("MANIFEST truncated", "partitions swapped")


def _partitions(made: Run) -> list[Path]:
    found = sorted((made.settings.data_dir / "tables").glob("**/*.db"))
    assert len(found) == 4, found
    return found


@pytest.mark.parametrize("names", [SHORT, pytest.param(tuple(DAMAGES), marks=pytest.mark.long)], ids=["short", "all"])
async def test_a_store_that_is_no_copy_is_made_anew(
    broker: str, tmp_path: Path, endured: Endured, names: tuple[str, ...]
) -> None:
    rng = random.Random(91)
    async with run("local stores damaged", broker, tmp_path, seed=91) as made:
        system, coordinator = made.system, made.system.coordinator
        await system.ready()
        for name in names:
            damage, said = DAMAGES[name]
            await made.submitter.feed(60)
            await made.done(0.5)
            # A killed process leaves what it had written out before; only one that stops leaves all of it.
            killed = name not in ON_ROWS and rng.random() < 0.5
            await system.halt(coordinator, signal.SIGKILL if killed else signal.SIGTERM)
            damage(_partitions(made), rng)
            heard = len(coordinator.log())
            with coordinator.may_exit(*([EXIT_REBUILD] if said else [])):
                system.resume(coordinator)
                await system.until(lambda: coordinator.was_ready, 40, f"ready after {name}")
            lines = coordinator.log()[heard:].count("local_store_discarded")
            assert (lines > 0) == said, f"{name}: {lines} lines\n{coordinator.log()[heard:]}"
        await made.submitter.feed(60)
        await made.verdict()
        endured(made.row)


@pytest.mark.long
async def test_a_store_from_another_time_or_place(broker: str, tmp_path: Path, endured: Endured) -> None:
    """An old copy is read on; a copy that knows more than the changelog, or another one, is made anew."""
    async with run("old and foreign stores", broker, tmp_path, seed=92) as made:
        system, coordinator, tables = made.system, made.system.coordinator, made.settings.data_dir / "tables"
        await system.ready()
        await made.submitter.feed(80)
        await made.done(0.5)
        await system.halt(coordinator)
        shutil.copytree(tables, tmp_path / "old")
        system.resume(coordinator)
        await made.submitter.feed(80)
        await made.done(1.0)
        await system.halt(coordinator)
        shutil.rmtree(tables)
        shutil.copytree(tmp_path / "old", tables)
        system.resume(coordinator)
        await system.until(lambda: coordinator.was_ready, 40, "ready on an old copy")
        assert "local_store_discarded" not in coordinator.log(), "it is older, and right as far as it goes"
        await made.submitter.feed(80)
        await made.verdict()
        endured(made.row)
        await _on_another(broker, tmp_path / "there", tables, endured)


async def _on_another(broker: str, data: Path, theirs: Path, endured: Endured) -> None:
    """A younger installation is started on the stores of an older one, whose changelogs are longer."""
    async with run("another's store", broker, data, seed=93) as made:
        system, coordinator = made.system, made.system.coordinator
        await system.ready()
        await made.submitter.feed(30)
        await made.done(1.0)
        await system.halt(coordinator, signal.SIGTERM)
        (ours,), (other,) = (list(path.iterdir()) for path in _apps(data, theirs))
        shutil.rmtree(ours)
        shutil.copytree(other, ours)
        with coordinator.may_exit(EXIT_REBUILD):
            system.resume(coordinator)
            await system.until(lambda: coordinator.was_ready, 40, "ready after it met another's store")
        await asyncio.sleep(0.1)
        assert coordinator.exits[EXIT_REBUILD] == 1, "once, whatever the number of partitions"
        assert coordinator.log().count('"event": "local_store_discarded"') == 1
        await made.submitter.feed(60)
        await made.verdict()
        endured(made.row)


def _apps(data: Path, theirs: Path) -> tuple[Path, Path]:
    """The directories of members, of this and of the other installation."""
    (ours,) = [path for path in (data / "tables").iterdir() if path.is_dir()]
    (other,) = [path for path in theirs.iterdir() if path.is_dir()]
    return _only_dirs(ours), _only_dirs(other)


def _only_dirs(path: Path) -> Path:
    for lock in path.glob("*.lock"):
        lock.unlink()
    return path

