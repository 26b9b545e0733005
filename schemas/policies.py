"""Policies are values that check themselves: a wrong one cannot exist, so no rule has to ask again."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from schemas.base import Enum, Int, Record


class Jitter(Enum):
    """How a delay is spread."""

    NONE = "none"
    FULL = "full"
    UNKNOWN = "unknown"


class RetryPolicy(Record):
    """When a failed attempt is followed by another; delays in seconds."""

    max_retries: Int = Field(default=3, ge=0, le=1000)
    retry_delay: float = Field(default=1.0, ge=0.0, le=86400.0, allow_inf_nan=False)
    backoff_multiplier: float = Field(default=2.0, ge=1.0, le=1000.0, allow_inf_nan=False)
    max_delay: float = Field(default=60.0, ge=0.0, le=86400.0, allow_inf_nan=False)
    jitter: Jitter = Jitter.NONE

    @model_validator(mode="after")
    def _known_jitter(self) -> Self:
        if self.jitter is Jitter.UNKNOWN:
            raise ValueError("jitter must be none or full")
        return self

    def delay_seconds(self, retry: int, spread: float = 1.0) -> float:
        """Delay before retry number `retry` (from 1), in seconds.

        Exponential backoff with a cap; with `jitter=full` the delay is `spread` (0..1) of it, the full jitter of
        M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. Raises ValueError below 1.
        """
        if retry < 1:
            raise ValueError(f"retries count from 1, not {retry}")
        # The exponent is capped first: 2.0 ** 2000 is an OverflowError, and the cap has long been reached by then.
        grown = self.retry_delay * self.backoff_multiplier ** min(retry - 1, 100)
        delay = min(grown, self.max_delay)
        return delay * spread if self.jitter is Jitter.FULL else delay


POLICY_A = RetryPolicy(retry_delay=2.0)
"""Three retries after 2, 4 and 8 seconds."""

POLICY_B = RetryPolicy()
"""Three retries after 1, 2 and 4 seconds; the default."""


class RateLimit(Record):
    """A token bucket: `rate` tokens per minute, at most `burst` saved."""

    rate: float = Field(gt=0.0, allow_inf_nan=False)
    burst: float = Field(default=20.0, ge=1.0, allow_inf_nan=False)
