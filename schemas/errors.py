"""One tree for everything that can go wrong, so that each catcher answers one question: again, or never?

    TroupeError                      everything we raise on purpose; has `code` and `hint`
      Permanent                      the same input fails the same way for ever
        InvalidInput                 the caller's data; a handler raises it, the task fails without a retry
        DecodeError                  bytes that are no record of their topic; they end as a dead letter
        SchemaError                  a model or writer schema breaks one of our rules; a programmer's mistake
        PayloadTooLarge              over `limits.max_record_bytes`; refused before produce
        OperatorError                the machine or the call is not as it must be; message and next command
      Retryable                      another moment may bring another answer
        UnknownSchemaId              the schema id is not known yet; read `_schemas` once more, then decide
        Overloaded                   a handler cannot take more now
        BrokerUnavailable            Kafka is not reachable
"""

from __future__ import annotations


class TroupeError(Exception):
    """Root of the tree.

    `code` is a word of the product's list, `hint` the next thing to do (may be empty).
    """

    code = "internal_error"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if code is not None:
            self.code = code


class Permanent(TroupeError):
    """The same input fails the same way for ever."""


class Retryable(TroupeError):
    """Another moment may bring another answer."""


class InvalidInput(Permanent):
    """The caller's data cannot be worked on; never retried."""

    code = "invalid_input"


class DecodeError(Permanent):
    """These bytes are not a record of this topic."""

    code = "invalid_request"


class SchemaError(Permanent):
    """A model or a writer schema breaks one of our rules."""


class PayloadTooLarge(Permanent):
    """A record is over its limit, both in bytes."""

    code = "payload_too_large"

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"Payload of {size} bytes exceeds {limit} bytes")


class OperatorError(Permanent):
    """Something outside the program must change first; `hint` names the next command."""

    code = "operator"


class UnknownSchemaId(Retryable):
    """The frame names a schema id that this reader has not seen for the topic's subject."""

    code = "invalid_request"

    def __init__(self, schema_id: int, subject: str) -> None:
        super().__init__(f"Schema id {schema_id} is not registered for subject '{subject}'")
        self.schema_id = schema_id


class Overloaded(Retryable):
    """A handler cannot take more work now."""

    code = "overloaded"


class BrokerUnavailable(Retryable):
    """Kafka does not answer."""

    code = "broker_unavailable"

    @classmethod
    def at(cls, bootstrap: str) -> BrokerUnavailable:
        """The one wording for a broker that cannot be reached."""
        hint = "start a system with `troupe up`, or name a running Kafka with --broker HOST:PORT"
        return cls(f"Kafka is not reachable at {bootstrap}", hint=hint)
