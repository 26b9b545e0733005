"""Exit codes of a coordinator that stops at once; the supervisor starts it again on each of them."""

EXIT_KAFKA = 70
"""Kafka refused for good, or the group did."""

EXIT_BUG = 71
"""A rule or the runtime itself is wrong, or a changelog is."""

EXIT_FENCED = 72
"""Another process owns our partitions, or may."""

EXIT_STOP_TIMEOUT = 75
"""A clean stop took too long."""
