"""Which agent a pattern means, when nobody has said otherwise.

A rule names a target: the agent of that id, together with those that share it as their name, so that a second copy of
an agent joins the pool by its name alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate

ROUND_ROBIN = "round_robin"
_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Rule:
    """Tasks of a pattern go to a target.

    pattern: a word, or a glob such as `report.*`. timeout: seconds for one attempt, None leaves it to the agent.
    priority: 1..5, for tasks that name none. strategy: None means the default.
    """

    pattern: str
    target: str
    timeout: int | None = None
    priority: int = 2
    required_capabilities: tuple[str, ...] = ()
    strategy: str | None = None
    enabled: bool = True


BUILTIN_RULES = tuple(
    Rule(pattern, target)
    for pattern, target in (
        ("ingest_data", "data_ingestion_agent"),
        ("update_mapping_rules", "mapping_rule_agent"),
        ("detect_anomalies", "anomaly_detection_agent"),
        ("generate_tests", "test_generation_agent"),
        ("upload_pdf", "content_ingestion_agent"),
        ("personalize_content", "personalization_agent"),
        ("build_knowledge_graph", "knowledge_graph_agent"),
        ("generate_assessment", "assessment_agent"),
        ("create_visual", "visual_generation_agent"),
        ("generate_audio", "audio_generation_agent"),
        ("translate_content", "translation_agent"),
        ("create_mindmap", "mindmap_agent"),
        ("apply_learning_science", "learning_science_agent"),
        ("track_analytics", "analytics_agent"),
        ("coordinate_realtime", "realtime_coordination_agent"),
        ("check_content_quality", "content_quality_agent"),
        ("run_local_ai", "local_ai_agent"),
        ("cache_data", "caching_agent"),
        ("manage_database", "database_management_agent"),
        ("check_security", "security_compliance_agent"),
        ("run_tests", "testing_qa_agent"),
        ("manage_infrastructure", "infrastructure_agent"),
    )
)
"""The four of the specialised agents, then the 18 of the pattern agents."""


class RuleBook:
    """Rules in the order in which they are asked: the exact word, then globs, more literal characters first."""

    def __init__(self, rules: Iterable[Rule] = BUILTIN_RULES) -> None:
        """A later rule of the same pattern takes the place of the earlier one."""
        known = {rule.pattern: rule for rule in rules}
        enabled = [rule for rule in known.values() if rule.enabled]
        self._exact = {rule.pattern: rule for rule in enabled if not _GLOB & set(rule.pattern)}
        globs = [rule for rule in enabled if _GLOB & set(rule.pattern)]
        globs.sort(key=lambda rule: -_literal_characters(rule.pattern))  # stable: listed order decides a tie
        self._globs = [(re.compile(translate(rule.pattern)), rule) for rule in globs]

    def exact(self, word: str) -> Rule | None:
        """The rule whose pattern is this very word."""
        return self._exact.get(word)

    def find(self, pattern: str) -> Rule | None:
        """The rule of a task's pattern, or None."""
        rule = self._exact.get(pattern)
        if rule is not None:
            return rule
        return next((rule for matches, rule in self._globs if matches.match(pattern)), None)


def _literal_characters(pattern: str) -> int:
    """Characters that stand for themselves; a `[set]` stands for one that is not."""
    return len(re.sub(r"\[[^\]]*\]|[*?]", "", pattern))
