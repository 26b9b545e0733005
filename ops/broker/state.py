"""What a cluster directory remembers between two commands: its brokers, their ports, the processes that ran last."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ops.broker.layout import Node
from ops.broker.process import Birth
from schemas.errors import OperatorError


class NodeState(BaseModel):
    """One broker: number, ports, and the process that ran it last (None after a clean stop)."""

    model_config = ConfigDict(frozen=True)

    id: int
    port: int
    controller_port: int
    process: Birth | None = None

    def node(self, directory: Path) -> Node:
        """The same broker with its place on disk."""
        return Node(self.id, directory, self.port, self.controller_port)


class State(BaseModel):
    """The state file. A directory without one has no brokers yet."""

    model_config = ConfigDict(frozen=True)

    nodes: tuple[NodeState, ...] = ()

    @classmethod
    def load(cls, directory: Path) -> State:
        """Read the state of a directory.

        Raises OperatorError if the file is there and is not ours to read.
        """
        path = directory / "state.json"
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except (OSError, ValidationError) as error:
            raise OperatorError(
                f"The state file {path} cannot be read: {error}",
                hint=f"remove {path}; the data beside it is not touched and is found again by the next start",
            ) from error

    def save(self, directory: Path) -> None:
        """Replace the state file in one step: a reader sees the old one or the new one."""
        scratch = directory / "state.json.part"
        scratch.write_text(self.model_dump_json(indent=1), encoding="utf-8")
        scratch.replace(directory / "state.json")
