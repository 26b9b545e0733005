"""Exit codes of a coordinator that stops at once; the supervisor starts it again on each of them."""

EXIT_KAFKA = 70
"""Kafka refused for good, or the group did, or it does not answer."""

EXIT_BUG = 71
"""A rule or the runtime itself is wrong, or a changelog is."""

EXIT_FENCED = 72
"""Another process owns our partitions, or may."""

EXIT_OPERATOR = 73
"""Somebody must change something first; another start would end the same, so a supervisor gives up after a few."""

EXIT_REBUILD = 74
"""The local store is no copy of the changelog; the next start makes it anew."""

EXIT_STOP_TIMEOUT = 75
"""A clean stop took too long."""
