"""Preparing passwords for comparison: SASLprep for SCRAM (RFC 4013), OpaqueString for all else (RFC 8265 §4.2).

SCRAM demands SASLprep, whose Unicode is that of 2002: it turns full-width letters into plain ones and knows no emoji.
Elsewhere a password is prepared as the newer OpaqueString asks: other spaces become spaces, the rest is composed (NFC).
"""

from __future__ import annotations

import stringprep
import unicodedata

from posthouse.protocol.sasl import SaslError

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def opaque_string(text: str) -> str:
    """One spelling for what looks the same: space characters as U+0020, NFC. Nothing is refused here."""
    if text.isascii():
        return text
    spaced = "".join(" " if unicodedata.category(character) == "Zs" else character for character in text)
    return unicodedata.normalize("NFC", spaced)


def saslprep(text: str) -> str:
    """RFC 4013 §2, for stored strings and queries alike. Raises SaslError, also for what Unicode 3.2 did not assign."""
    if text.isascii() and text.isprintable():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if any(table(character) for character in prepared for table in _PROHIBITED):
        raise SaslError("the text holds a character that SASLprep forbids")
    if any(map(stringprep.in_table_d1, prepared)):
        _check_direction(prepared)
    return prepared


def _check_direction(text: str) -> None:
    """Right-to-left text begins and ends so, and holds no left-to-right letter (RFC 3454 §6)."""
    ends_right = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    if not ends_right or any(map(stringprep.in_table_d2, text)):
        raise SaslError("the text mixes directions of writing")
