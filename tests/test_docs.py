"""The map names what is there, once; the changelog says nothing twice."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.main import get_command

from posthouse.cli import program
from posthouse.mail.journey import JourneyEvent
from posthouse.metrics import HouseFacts, Metrics, exposition

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "posthouse"
MAP = (ROOT / "docs" / "ARCHITECTURE.md").read_text()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:[\w]+/)*\w+\.py)`", MAP))))
def test_a_file_that_the_map_names_is_there(name: str) -> None:
    assert (PACKAGE / name).exists() or (ROOT / name).exists() or list(PACKAGE.rglob(name))


def test_every_folder_stands_in_the_map_once() -> None:
    rows = [row for row in MAP.splitlines() if re.match(r"\| \d \|", row)]
    folders = [name for row in rows for name in re.findall(r"`(\w+)/`", row.split("|")[2])]
    there = [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
    assert sorted(folders) == sorted(there)


@pytest.mark.parametrize(
    "name", ["CHANGELOG.md", "README.md", "docs/ARCHITECTURE.md", "docs/guarantees.md", "docs/getting-started.md"]
)
def test_no_line_stands_twice(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if len(line) > 40]
    assert len(lines) == len(set(lines))


def test_keys_stand_once_in_the_configuration() -> None:
    keys = re.findall(r"^\| `([\w.]+)` \|", (ROOT / "docs" / "configuration.md").read_text(), re.MULTILINE)
    assert len(keys) > 50
    assert len(keys) == len(set(keys))


COMMAND = re.compile(r"(?:^ {4}|`)posthouse ([a-z][a-z-]*(?: [a-z][a-z-]*)*)", re.MULTILINE)
FOR_PEOPLE = ("README.md", "docs/getting-started.md", "docs/mail-programs.md")
COMING: set[str] = set()
"""Commands that documents may name before they are there."""


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every command: the words that lead to it, and what its help says first."""
    for name, command in getattr(group, "commands", {}).items():
        if getattr(command, "commands", None):
            yield from commands(command, (*words, name))
        elif not command.hidden:
            yield (*words, name), " ".join(command.help.split("\n\n")[0].split())


EVERY_COMMAND = dict(sorted(commands(get_command(program(())))))


@pytest.mark.parametrize("document", FOR_PEOPLE)
def test_commands_that_documents_name_are_there(document: str) -> None:
    """The first word, and the second where the first is a group; what follows may be anything."""
    named = [words.split() for words in COMMAND.findall((ROOT / document).read_text())]
    assert named
    single = {words[0] for words in EVERY_COMMAND if len(words) == 1} | COMING
    groups = {words[:2] for words in EVERY_COMMAND if len(words) > 1}
    assert [words for words in named if words[0] not in single and tuple(words[:2]) not in groups] == []


def test_every_command_stands_in_the_documents() -> None:
    rows = set((ROOT / "docs" / "commands.md").read_text().splitlines())
    wanted = {f"| `posthouse {' '.join(words)}` | {text} |" for words, text in EVERY_COMMAND.items()}
    assert sorted(wanted - rows) == []
    assert sorted(row for row in rows - wanted if row.startswith("| `posthouse ")) == []


OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def exported() -> set[str]:
    """The names of all that /metrics tells."""
    facts = HouseFacts(
        ready=True, build={}, queue={"held": 0}, storage_octets={"log": 0}, certificates={"*": 0.0}, workers={0: True}
    )
    text = exposition({0: Metrics().collect()}, facts, "")[0].decode()
    return set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))


def test_the_table_of_metrics_names_what_is_exported() -> None:
    named = re.findall(r"^\| `(posthouse_\w+)` \|", OPERATIONS, re.MULTILINE)
    assert len(named) == len(set(named))
    assert set(named) == exported()


def test_alerts_are_about_metrics_that_there_are() -> None:
    alerts = OPERATIONS.split("```yaml")[1].split("```")[0]
    assert alerts.count("- alert:") >= 6
    for name in re.findall(r"posthouse_\w+", alerts):
        assert name.removesuffix("_bucket") in exported()


def test_labels_of_the_table_are_those_that_are_exported() -> None:
    metrics = Metrics()
    metrics.refused("loop")
    metrics.turned_away(lambda: {"pop3": 1})
    found: dict[str, set[str]] = {}
    for metric in metrics.collect():
        suffix = "_total" if metric.type == "counter" else ""
        for sample in metric.samples:
            found.setdefault(metric.name + suffix, {"worker"}).update(set(sample.labels) - {"le"})
    for name, labels in re.findall(r"^\| `(posthouse_\w+)` \| ([^|]*)\|", OPERATIONS, re.MULTILINE):
        if name in found:
            assert set(re.findall(r"`(\w+)`", labels)) == found[name], name


def test_every_field_of_a_journey_is_documented() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    fields = {field.name for kind in get_args(JourneyEvent) for field in dataclasses.fields(kind)}
    wanted = fields | {kind.__name__.lower() for kind in get_args(JourneyEvent)}
    wanted |= {"event", "since_last_s", "text", "details", "now", "related"}
    assert sorted(name for name in wanted if f"`{name}`" not in text) == []
