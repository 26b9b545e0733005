"""A real Context on a temporary folder; what handlers report is kept in `progress`."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from actors.api import Context


@pytest.fixture
def progress() -> list[tuple[float, str]]:
    return []


@pytest.fixture
def ctx(tmp_path: Path, progress: list[tuple[float, str]]) -> Context:
    (tmp_path / "sources").mkdir()
    return Context(
        task_id="task-1",
        attempt=1,
        epoch=1,
        deadline_at=2**60,
        last_attempt=False,
        logger=structlog.get_logger(),
        data_dir=tmp_path / "data",
        sources_root=tmp_path / "sources",
        send_progress=lambda share, note: progress.append((share, note)),
    )
