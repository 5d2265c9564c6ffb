"""docs/differences.md, as the table has it: `python -m tests.differences.document` writes it."""

from __future__ import annotations

from pathlib import Path

from tests.differences.intended import CONTENT, POP3, SMTP, Intended

PATH = Path(__file__).parents[2] / "docs" / "differences.md"
HEAD = """\
# Where Posthouse answers otherwise than others

The same random dialogues are held with Posthouse and with Postfix 3.7 (SMTP) and Dovecot 2.3 (POP3) as Debian 12 has
them: right ones, nearly right ones, commands in the wrong order, odd parameters, commands sent in groups. The classes
of the answers are compared one by one, and then what the mailboxes hold. Each difference that is meant stands here with
its reason; any other fails the test (`tests/differences/`; more of it: `scripts/differences --dialogues 5000`).
Postfix is told to be as strict as it can be (`strict_rfc821_envelopes`, `smtpd_forbid_bare_newline = reject`).

This page is written by `python -m tests.differences.document`.
"""


def page() -> str:
    parts = [
        HEAD,
        "## SMTP, beside Postfix\n",
        _table(SMTP, "Postfix"),
        "\n## What is kept, beside Postfix\n",
        "| what | why |\n|---|---|",
        *(f"| {each.what} | {each.reason} |" for each in CONTENT),
        "\n## POP3, beside Dovecot\n",
        _table(POP3, "Dovecot"),
    ]
    return "\n".join(parts) + "\n"


def _table(table: tuple[Intended, ...], other: str) -> str:
    rows = [f"| {each.what} | {_classes(each.ours)} | {_classes(each.theirs)} | {each.reason} |" for each in table]
    return "\n".join([f"| what | Posthouse | {other} | why |", "|---|---|---|---|", *rows])


def _classes(classes: str) -> str:
    words = {"+": "`+OK`", "E": "`-ERR`", "-": "closes"}
    return " or ".join(words.get(each, f"{each}yz") for each in classes)


if __name__ == "__main__":
    PATH.write_text(page(), "utf-8")
