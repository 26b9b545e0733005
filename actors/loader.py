"""Agents of a user live in a file of theirs: it is imported once and its `agents()` is called, nothing else."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from actors.api import Actor
from schemas.errors import OperatorError

_SHAPE = "a file for `troupe run` defines `def agents() -> list[Actor]`"


def load_agents(file: Path) -> list[Actor]:
    """The actors of a file, in its order.

    Its folder is put on `sys.path`, so that it may import its neighbours. Raises OperatorError, naming file and line,
    if the file is missing, raises, has no `agents()`, or that returns anything but actors with different ids.
    """
    if not file.is_file():
        raise OperatorError(f"File '{file}' does not exist", hint="check the path given to `troupe run`")
    spec = importlib.util.spec_from_file_location(f"troupe_agents_{_word(file.stem)}", file)
    if spec is None or spec.loader is None:
        raise OperatorError(f"File '{file}' is no Python file", hint=_SHAPE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # annotations in it are looked up there
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise OperatorError(f"'{file}' cannot be imported: {_told(error, file)}", hint="mend the file") from error
    make = getattr(module, "agents", None)
    if not callable(make):
        raise OperatorError(f"'{file}' has no function agents()", hint=_SHAPE)
    try:
        made = make()
    except (Exception, SystemExit) as error:
        raise OperatorError(f"agents() of '{file}' raised {_told(error, file)}", hint="mend the file") from error
    return _checked(made, file)


def _checked(made: object, file: Path) -> list[Actor]:
    if not isinstance(made, Sequence) or not all(isinstance(each, Actor) for each in made):
        raise OperatorError(f"agents() of '{file}' returned {_shown(made)} instead of a list of Actor", hint=_SHAPE)
    if not made:
        raise OperatorError(f"agents() of '{file}' returned no actor", hint=_SHAPE)
    twice = [agent_id for agent_id, count in Counter(each.agent_id for each in made).items() if count > 1]
    if twice:
        raise OperatorError(f"'{file}' names the agent '{twice[0]}' more than once", hint="give each Actor its own id")
    return list(made)


def _shown(made: object) -> str:
    if isinstance(made, Sequence) and not isinstance(made, str):
        return f"{type(made).__name__} with {next(type(each).__name__ for each in made if not isinstance(each, Actor))}"
    return type(made).__name__


def _told(error: BaseException, file: Path) -> str:
    """The error and the last line of the file that led to it."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    if isinstance(error, SyntaxError) and error.filename == str(file):
        lines = [error.lineno]
    line = lines[-1] if lines else None
    return f"{type(error).__name__}: {error}" + (f" (line {line})" if line else "")


def _word(stem: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in stem)
