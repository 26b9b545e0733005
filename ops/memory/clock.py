"""The one clock of a run in memory, so that a day passes in a moment and the same seed gives the same instants.

Nothing moves it but `advance`; whoever waits for a time waits for somebody to call that.
"""

from __future__ import annotations

DAWN = 1_750_000_000_000_000
"""Where a clock begins unless told otherwise, microseconds since 1970: an ordinary day, as a time of 0 means "none"."""


class VirtualClock:
    """now: microseconds since 1970."""

    def __init__(self, now: int = DAWN) -> None:
        self.now = now

    def advance(self, micros: int) -> int:
        """Let time pass; returns the new `now`. Raises ValueError for a step back, which no broker's clock takes."""
        if micros < 0:
            raise ValueError(f"the clock goes forward, not by {micros} us")
        self.now += micros
        return self.now
