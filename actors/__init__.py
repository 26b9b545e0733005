"""Agents: the public API is `Actor` and `Context`; the mailbox and the catalog live beside it."""

from actors.api import Actor, Context

__all__ = ["Actor", "Context"]
