"""The options that most verbs share, and how they become settings and an address.

A verb that talks to a running system finds it by `--broker` or its setting, else by `--data`, else as the only one that
runs on this machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ops.cli.errors import WrongUse
from ops.running import settings_here
from schemas.settings import Settings, load_settings, process_environment

Broker = Annotated[str | None, typer.Option("--broker", metavar="HOST:PORT", help="Kafka to use.")]
Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Directory of the system.")]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings as YAML.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting; repeatable.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]


def settings_of(
    broker: str | None = None, data: Path | None = None, config: Path | None = None, sets: list[str] | None = None
) -> Settings:
    """Settings from defaults, file, environment and these options. Raises OperatorError for unknown or wrong ones."""
    overrides: dict[str, Any] = dict(_pair(text) for text in sets or ())
    if broker is not None:
        overrides["kafka.bootstrap_servers"] = broker
    if data is not None:
        overrides["data_dir"] = str(data)
    return load_settings(process_environment(), config, overrides)


def names_broker(settings: Settings) -> bool:
    """Whether the Kafka to use was said, and is not just the default."""
    return "bootstrap_servers" in settings.kafka.model_fields_set


def running_settings(
    broker: str | None = None, data: Path | None = None, config: Path | None = None, sets: list[str] | None = None
) -> Settings:
    """Settings with the address, directory, prefix and partition count of the running system that the options mean.

    Raises OperatorError if none or several run.
    """
    if broker is not None:
        return settings_of(broker, data, config, sets)
    return settings_here(process_environment(), data, config, dict(_pair(text) for text in sets or ()))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise WrongUse(f"--set takes KEY=VALUE, not '{text}'", hint="for example --set routing.grace_seconds=2")
    return key, value
