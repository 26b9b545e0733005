"""From a handler's signature to a call: which operation, with which input, and what its answer is as JSON text.

A wrong signature is found when the actor is made, not when its first task arrives; a wrong input is told to the caller
with the path of the field; a wrong answer is the handler's mistake and is never retried. No I/O and no Kafka here.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import from_json, to_json, to_jsonable_python

from schemas.errors import InvalidInput, Permanent, Retryable, TroupeError
from schemas.tasks import TaskError

Handler = Callable[..., Any]
"""`(input, ctx) -> model | dict`, sync or async."""

MESSAGE_CHARS = 2000
"""Longest error text that is reported of a handler."""

# Codes that an agent may give to a failure of its own; any other word becomes `agent_error`.
_AGENT_CODES = frozenset({"invalid_input", "unsupported", "overloaded", "provider_unavailable", "payload_too_large"})


class WrongResult(Permanent):
    """A handler returned what is neither a JSON object nor a pydantic model."""

    code = "agent_error"


class NoSuchOperation(InvalidInput):
    """`payload.operation` names none of the agent's operations."""

    code = "unsupported"


@dataclass(frozen=True, slots=True)
class Operation:
    """One handler, checked. `parse` turns a payload's JSON text into its input and raises InvalidInput."""

    name: str
    handler: Handler
    is_async: bool
    parse: Callable[[str], Any]


class Operations:
    """The operations of one agent, by name; the first is the default."""

    __slots__ = ("_by_name", "_default")

    def __init__(self, handler: Handler | Mapping[str, Handler]) -> None:
        """Raises TypeError or ValueError, naming the handler and what it must look like."""
        handlers = handler if isinstance(handler, Mapping) else {"": handler}
        if not handlers:
            raise ValueError("an agent needs at least one handler")
        self._by_name = {name: _operation(name, each) for name, each in handlers.items()}
        self._default = next(iter(self._by_name.values()))

    def pick(self, payload: str) -> tuple[Operation, Any]:
        """The operation that a payload asks for, and its input. Raises InvalidInput or NoSuchOperation."""
        operation = self._default
        if operation.name:
            operation = self._named(payload)
        return operation, operation.parse(payload)

    def _named(self, payload: str) -> Operation:
        word = _object(payload).get("operation")
        if word is None:
            return self._default
        found = self._by_name.get(word) if isinstance(word, str) else None
        if found is None:
            raise NoSuchOperation(f"operation: '{word}' is none of {', '.join(self._by_name)}")
        return found


def _operation(name: str, handler: Handler) -> Operation:
    if not callable(handler):
        raise TypeError(f"a handler is a function of (input, ctx), not {type(handler).__name__}")
    shown = getattr(handler, "__qualname__", repr(handler))
    return Operation(name, handler, _is_async(handler), _parser(_input(handler, shown), shown, bool(name)))


def _is_async(handler: Handler) -> bool:
    inner = handler.func if isinstance(handler, functools.partial) else handler
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(getattr(inner, "__call__", None))  # noqa: B004


def _input(handler: Handler, shown: str) -> inspect.Parameter:
    try:
        signature = inspect.signature(handler, eval_str=True)
    except NameError as error:
        raise TypeError(f"handler '{shown}': {error}; define its input class at the top of a module") from error
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    places = [each for each in signature.parameters.values() if each.kind in kinds]
    due = [each for each in signature.parameters.values() if each.default is inspect.Parameter.empty]
    if len(places) < 2 or len([each for each in due if each.kind is not inspect.Parameter.VAR_KEYWORD]) > 2:
        raise TypeError(f"handler '{shown}' must take (input, ctx), it takes {signature}")
    if places[0].annotation is inspect.Parameter.empty:
        raise TypeError(f"handler '{shown}': {_annotate(places[0])}")
    return places[0]


def _annotate(place: inspect.Parameter) -> str:
    return f"annotate '{place.name}' with a pydantic model, dict or str"


def _parser(place: inspect.Parameter, shown: str, has_operation: bool) -> Callable[[str], Any]:
    hint = place.annotation
    if hint is str:
        return str
    if hint is dict or hint is Any:
        return _object
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
    except PydanticUserError as error:
        raise TypeError(f"handler '{shown}': input of type {hint!r} cannot be validated: {error.message}") from error
    if not _takes_objects(adapter):
        named = inspect.formatannotation(hint)
        raise TypeError(f"handler '{shown}': a payload is a JSON object, and no {named}; {_annotate(place)}")
    drop = has_operation and _forbids_operation(hint)

    def parse(payload: str) -> Any:
        try:
            return adapter.validate_json(_without_operation(payload) if drop else payload)
        except ValidationError as invalid:
            raise InvalidInput(first_error(invalid)) from invalid

    return parse


class _Shapes(GenerateJsonSchema):
    """What may be valid, rather than what is told to callers; and what it cannot say is no news to an author of agents."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}

    def arguments_schema(self, schema: Any) -> dict[str, Any]:
        return {"type": "object"}

    named_tuple_schema = arguments_schema  # by name too; which of the two it is depends on pydantic's version

    def function_before_schema(self, schema: Any) -> dict[str, Any]:
        return {}  # code of the author's own may make the input of anything

    function_wrap_schema = function_before_schema


def _takes_objects(adapter: TypeAdapter[Any]) -> bool:
    """Whether a JSON object may be valid; so it is said to be where pydantic cannot tell."""
    try:
        whole = adapter.json_schema(schema_generator=_Shapes)
    except PydanticUserError:
        return True
    waiting, seen = [whole], set[str]()
    while waiting:
        part = waiting.pop()
        if (ref := part.get("$ref")) is not None:
            if ref not in seen:
                seen.add(ref)
                waiting.append(whole["$defs"][ref.removeprefix("#/$defs/")])
        elif (parts := part.get("anyOf") or part.get("oneOf")) is not None:
            waiting += parts
        elif part.get("type", "object") == "object" and not {"const", "enum"} & part.keys():
            return True
    return False


def _forbids_operation(hint: Any) -> bool:
    model = inspect.isclass(hint) and issubclass(hint, BaseModel)
    return model and hint.model_config.get("extra") == "forbid" and "operation" not in hint.model_fields


def _without_operation(payload: str) -> str:
    return json.dumps({name: value for name, value in _object(payload).items() if name != "operation"})


def _object(payload: str) -> dict[str, Any]:
    try:
        value = from_json(payload, allow_inf_nan=False)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"payload: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"payload: a JSON object is due, this is {type(value).__name__}")
    return value


def first_error(invalid: ValidationError) -> str:
    """The first message of a validation with the path of its field, and how many more there are."""
    first = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
    more = f" (and {invalid.error_count() - 1} more)" if invalid.error_count() > 1 else ""
    return f"{'.'.join(str(part) for part in first['loc']) or 'payload'}: {first['msg']}{more}"


def result_text(result: Any) -> str:
    """A handler's answer as JSON text. Raises WrongResult if it is no JSON object."""
    try:
        if isinstance(result, BaseModel):
            text = result.model_dump_json()
        elif isinstance(result, dict):
            data = to_json(result)
            if b"NaN" in data or b"Infinity" in data:  # in a string it is fine, as a number it is no JSON
                json.dumps(to_jsonable_python(result), allow_nan=False)
            text = data.decode()
        else:
            raise WrongResult(f"the handler returned {type(result).__name__}; a dict or a pydantic model is due")
    except (ValueError, TypeError, RecursionError) as error:  # pydantic's serialization error is a ValueError
        raise WrongResult(f"the handler's result is no JSON object: {error}") from error
    if not text.startswith("{"):
        raise WrongResult(f"the handler returned {type(result).__name__}, which is no JSON object")
    return text


def failure(error: BaseException, agent_id: str, attempt: int) -> TaskError:
    """What is reported of an attempt whose handler raised: only the tree of errors knows 'never again'."""
    code, retryable = "agent_error", not isinstance(error, Permanent)
    text = str(error)
    if isinstance(error, TroupeError):
        code = error.code if error.code in _AGENT_CODES else "agent_error"
        if isinstance(error, InvalidInput) and code == "agent_error":
            code = "invalid_input"
        retryable = isinstance(error, Retryable)
    else:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return TaskError(code=code, message=sound(text), retryable=retryable, agent_id=agent_id, attempt=attempt)


def sound(text: str) -> str:
    """A handler's text as a report takes it: bounded, and without the half characters that UTF-8 has no bytes for."""
    return text[:MESSAGE_CHARS].encode("utf-8", "replace").decode()
