"""What a step may know besides its row and its event: settings, agents, rules, and what all rows together say.

One value handed to every part, so that the parts stay functions. Only `index` of the processor changes load, queues and
turns; only `refresh` changes the directory.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import translate

from schemas.policies import RetryPolicy
from schemas.settings import Settings
from schemas.tasks import TaskCommand
from streams.processor import Share, Views
from streams.routing.balance import Turns
from streams.routing.directory import Directory
from streams.routing.route import Router
from streams.routing.rules import RuleBook
from streams.tasks.load import Load
from streams.tasks.queue import Queues
from streams.tasks.rows import SECOND

Decode = Callable[[bytes, str], TaskCommand]
"""A request's raw value and its position to the command."""

PRIORITY = 3
"""Level of a task when neither it nor a rule names one."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """See above. replies: what a `reply_to` may be; grace: microseconds that an unknown target has to register."""

    settings: Settings
    share: Share
    decode: Decode
    version: str
    retry: RetryPolicy
    replies: re.Pattern[str]
    grace: int
    router: Router
    directory: Directory
    load: Load
    queues: Queues
    turns: Turns

    def refresh(self, views: Views) -> None:
        """Follow the views."""
        for agent_id in self.directory.refresh(views):
            self.load.limited(agent_id, self.directory.limit(agent_id))

    def may_reply(self, topic: str | None) -> bool:
        """Whether results may be sent there."""
        return topic is not None and self.replies.match(topic) is not None


def knowledge(settings: Settings, share: Share, decode: Decode, version: str) -> Knowledge:
    """Everything empty, as at the start."""
    directory = Directory(share)
    names = [settings.kafka.topic_prefix + name for name in settings.kafka.reply_topics] + [
        *settings.kafka.reply_topics
    ]
    return Knowledge(
        settings=settings,
        share=share,
        decode=decode,
        version=version,
        retry=settings.error_recovery.policy(),
        replies=re.compile("|".join(translate(name) for name in names) or r"(?!)"),
        grace=int(settings.routing.grace_seconds * SECOND),
        router=Router(RuleBook(), directory),
        directory=directory,
        load=Load(),
        queues=Queues(),
        turns=Turns(),
    )
