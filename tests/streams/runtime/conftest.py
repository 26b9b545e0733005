"""The stand on which owner, batches and store are played by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.streams.runtime.tally import Stand


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    """A log without a past."""
    return Stand(tmp_path)
