"""The command as a program: its help, its errors, and where it looks for a system."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from ops.cli.errors import WrongUse
from ops.cli.main import Verbs
from ops.cli.options import settings_of
from ops.cli.roles import children, environ_with_sources, host_of, role_environ, troupe_command, with_instance
from ops.cli.up import plan_of
from schemas.errors import OperatorError
from schemas.settings import Coordinator, Kafka, Routing, Settings, load_settings


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TROUPE_", "KAFKA_"))}
    return environ_with_sources(kept | {"XDG_STATE_HOME": str(tmp_path / "state"), "COLUMNS": "200"})


def troupe(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        troupe_command(*arguments), env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_help_lists_every_verb_but_the_hidden_one(environ: dict[str, str]) -> None:
    found = troupe(environ, "--help")
    assert found.returncode == 0
    for name, verb in Verbs.table.items():
        assert (verb.help in found.stdout) is not verb.hidden, name


@pytest.mark.parametrize("name", Verbs.table)
def test_every_verb_can_be_loaded_and_explains_itself(name: str) -> None:
    command = Verbs.table[name].load(name)
    assert command.help


def test_an_unknown_verb_is_wrong_use(environ: dict[str, str]) -> None:
    found = troupe(environ, "upp")
    assert found.returncode == 2
    assert "upp" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "cause"),
    [
        (["status", "x"], 1, "Error: No system runs on this machine"),
        (["agents", "--data", "nowhere"], 1, "Error: No system runs in"),
        (["submit", "p", "--broker", "127.0.0.1:1"], 1, "Error: Kafka"),
        (["topics", "list", "--broker", "127.0.0.1:1"], 1, "Error: Kafka is not reachable at 127.0.0.1:1"),
        (["submit", "p", "--payload", "{"], 2, "Error: The payload (--payload) is not JSON"),
        (["submit", "p", "--payload", "5"], 2, "Error: The payload (--payload) is no JSON object: 5"),
        (["submit"], 2, "Error: Who is to do it?"),
        (["submit", "p", "--pattern", "q"], 2, "Error: Two patterns"),
        (["up", "--only", "cook"], 2, "Error: Unknown role 'cook'"),
        (["up", "--agents", "nowhere.py"], 2, "Error: There is no file nowhere.py"),
        (["run", "nowhere.py"], 2, "Error: There is no file nowhere.py"),
        (["ps", "--set", "x"], 2, ""),
        (["up", "--set", "x"], 2, "Error: --set takes KEY=VALUE"),
        (["up", "--set", "routing.grace=1"], 1, "Error: Unknown setting 'routing.grace'"),
        (["up", "--set", "routing.grace_seconds=soon"], 1, "Error: Setting 'routing.grace_seconds'"),
    ],
)
def test_errors_are_a_cause_and_a_hint(environ: dict[str, str], arguments: list[str], code: int, cause: str) -> None:
    found = troupe(environ, *arguments)
    assert found.returncode == code
    assert found.stdout == ""
    assert cause in found.stderr
    assert "Traceback" not in found.stderr
    if cause:
        assert found.stderr.splitlines()[-1].startswith("Hint: ")


def test_with_nothing_running_ps_and_down_are_content(environ: dict[str, str]) -> None:
    assert json.loads(troupe(environ, "ps", "--json").stdout) == []
    assert json.loads(troupe(environ, "down", "--json").stdout) == {"stopped": []}
    assert troupe(environ, "ps").stdout == ""


def test_options_win_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TROUPE_ROUTING__GRACE_SECONDS", "1")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "env:1")
    found = settings_of("option:2", tmp_path, None, ["routing.grace_seconds=2"])
    assert (found.kafka.bootstrap_servers, found.data_dir, found.routing.grace_seconds) == ("option:2", tmp_path, 2)
    assert settings_of().kafka.bootstrap_servers == "env:1"
    with pytest.raises(WrongUse):
        settings_of(sets=["=1"])
    with pytest.raises(OperatorError):
        settings_of(config=tmp_path / "absent.yaml")


def test_a_role_gets_exactly_the_settings_of_its_supervisor(tmp_path: Path) -> None:
    settings = Settings(kafka=Kafka(bootstrap_servers="k:1", partitions=2), data_dir=tmp_path)
    noise = {"PATH": "p", "KAFKA_BOOTSTRAP_SERVERS": "other:1", "TROUPE_ROUTING__GRACE_SECONDS": "9"}
    assert load_settings(role_environ(noise, settings)) == settings
    assert role_environ(noise, settings)["PATH"] == "p"


def test_roles_of_a_system(tmp_path: Path) -> None:
    file = tmp_path / "my agents.py"
    settings = Settings(data_dir=tmp_path, routing=Routing(grace_seconds=1))
    found = {spec.role: spec for spec in children(settings, {}, ("coordinator", "actors"), [file])}
    own = f"actors:{host_of(file)}"
    assert list(found) == ["coordinator", "actors", own]
    assert found[own].environ["TROUPE_ACTORS__HOST"] == host_of(file)
    assert str(file) in found[own].command
    assert len({spec.log_file for spec in found.values()}) == 3
    assert list(children(settings, {}, (), [])) == []


def test_the_embedded_kafka_answers_within_the_time_for_admin_answers(tmp_path: Path) -> None:
    kafka = Kafka(metadata_timeout_seconds=3.0)
    broker = plan_of(Settings(data_dir=tmp_path, kafka=kafka), 0, (), ()).broker
    assert broker is not None and broker.answer_timeout_s == 3.0


def test_hosts_are_named_after_their_files_and_differ_between_directories(tmp_path: Path) -> None:
    assert host_of(tmp_path / "a.py") == host_of(tmp_path / "a.py")
    assert host_of(tmp_path / "a.py") != host_of(tmp_path / "b" / "a.py")
    assert host_of(tmp_path / "my agents!.py").startswith("my-agents-")
    assert len(host_of(tmp_path / ("x" * 200 + ".py"))) <= 64


def test_coordinators_of_two_systems_on_one_kafka_have_two_names(tmp_path: Path) -> None:
    one = with_instance(Settings(data_dir=tmp_path / "a"), embedded=False).coordinator.instance
    two = with_instance(Settings(data_dir=tmp_path / "b"), embedded=False).coordinator.instance
    assert one != two
    assert one == with_instance(Settings(data_dir=tmp_path / "a"), embedded=False).coordinator.instance
    assert with_instance(Settings(data_dir=tmp_path), embedded=True).coordinator.instance == "coordinator-1"


def test_each_coordinator_of_several_has_a_name_a_log_and_a_ready_file_of_its_own(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, coordinator=Coordinator(instance="here", replicas=3))
    found = children(settings, {}, ("coordinator",), ())
    assert [each.role for each in found] == ["coordinator", "coordinator:2", "coordinator:3"]
    names = [each.command[each.command.index("--instance") + 1] for each in found]
    assert names == ["here", "here.2", "here.3"]
    assert len({each.log_file for each in found}) == len({each.ready_file for each in found}) == 3
