"""Stories as a person sees them: `stories/*.txt` are at 80 columns, with dialogues where the name says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from posthouse.cli.story_layout import listed, story
from tests.cli.journeys_to_tell import STORIES

FOLDER = Path(__file__).parent / "stories"


def assert_golden(name: str, lines: list[str]) -> None:
    """The text is that of the file. To change it: delete the file, run the test twice, and read what is new."""
    file, text = FOLDER / f"{name}.txt", "\n".join(lines) + "\n"
    if not file.exists():
        file.write_text(text, encoding="utf-8")
        pytest.fail(f"{name}.txt was missing, and is written now: read it")
    assert text == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", STORIES)
def test_a_story_reads_as_it_should(name: str) -> None:
    assert_golden(name, list(story(STORIES[name], width=80, dialogues=False)))


@pytest.mark.parametrize("name", ["put_off_then_delivered", "still_waiting"])
def test_a_dialogue_reads_as_it_should(name: str) -> None:
    assert_golden(f"{name}_with_dialogue", list(story(STORIES[name], width=80, dialogues=True)))


def test_a_list_reads_as_it_should() -> None:
    assert_golden("list", [line for told in STORIES.values() for line in listed(told, width=80)])


def test_every_story_is_there() -> None:
    names = {path.stem.removesuffix("_with_dialogue") for path in FOLDER.glob("*.txt")}
    assert names == {*STORIES, "list"}


@pytest.mark.parametrize("width", [20, 40, 60, 66, 73, 74, 80, 120])
@pytest.mark.parametrize("name", STORIES)
def test_it_fits_and_commands_stay_whole(name: str, width: int) -> None:
    lines = [*story(STORIES[name], width=width, dialogues=True), *listed(STORIES[name], width=width)]
    for line in lines:
        is_whole = "posthouse " in line or re.search(r"[0-9A-Z]{26}", line) is not None
        assert len(line) <= max(width, 55) or is_whole, line
        assert line == line.rstrip()
    commands = [line for line in lines if "posthouse journey" in line]
    assert all(re.search(r"posthouse journey [0-9A-Z]{26}", line) for line in commands)


@pytest.mark.parametrize("name", STORIES)
def test_whoever_reads_line_by_line_gets_each_text_on_one(name: str) -> None:
    lines = list(story(STORIES[name], width=None, dialogues=True))
    wrapped = " ".join(" ".join(story(STORIES[name], width=80, dialogues=True)).split())
    assert wrapped == " ".join(" ".join(lines).split())
    assert len(lines) <= len(list(story(STORIES[name], width=80, dialogues=True)))
