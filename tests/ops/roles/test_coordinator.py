"""The coordinator as a process: one of a name, and refusals that a person understands."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.roles.coordinator import own_name
from schemas.errors import OperatorError
from schemas.settings import Coordinator, Settings


def named(data: Path, name: str) -> Settings:
    return Settings(data_dir=data, coordinator=Coordinator(instance=name, stop_seconds=0.2))


async def test_a_second_one_of_a_name_is_refused_and_another_name_is_not(tmp_path: Path) -> None:
    async with own_name(named(tmp_path, "one")):
        with pytest.raises(OperatorError, match="A coordinator named 'one' already runs") as raised:
            async with own_name(named(tmp_path, "one")):
                pass
        assert "--instance" in raised.value.hint
        async with own_name(named(tmp_path, "two")):
            pass
    async with own_name(named(tmp_path, "one")):
        pass
