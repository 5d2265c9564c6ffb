"""Octets to text in whatever charset a message names, or that it should have named. Never fails.

The names are those that Python knows, looked up in a table: what a message says is never imported. Codecs that are no
charsets of mail, some of which take quadratic time (punycode), are left out.
"""

from __future__ import annotations

import re
from encodings import normalize_encoding
from encodings.aliases import aliases
from typing import Final

_HALF = re.compile("[\ud800-\udfff]")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+\-]{0,39}\Z")
_TEXT_CODEC = re.compile(
    r"(ascii|latin_1|utf_?(8|7|16|32)|cp\d|iso8859_|koi8_|mac_|gb|big5|euc_|shift_jis|iso2022_|hz|johab|tis_620|kz1048"
    r"|ptcp154|hp_roman8)"
)
_CODECS: Final = {name for name in aliases.values() if _TEXT_CODEC.match(name)} | {
    "cp874",
    "cp1006",
    "cp720",
    "cp737",
    "cp856",
    "koi8_t",
    "koi8_u",
    "utf_8_sig",
}
_OTHER_NAMES: Final = {
    "unicode_1_1_utf_7": "utf_7",
    "unicode_1_1_utf_8": "utf_8",
    "utf8mb4": "utf_8",
    "iso_8859_8_i": "iso8859_8",
    "iso_8859_8_e": "iso8859_8",
    "windows_874": "cp874",
    "x_gbk": "gbk",
    "x_sjis": "shift_jis",
    "x_euc_jp": "euc_jp",
    "cp_850": "cp850",
}
# Names that senders use for the larger charsets that contain them.
_LARGER: Final = {
    "latin_1": "cp1252",
    "iso8859_9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
}


def decoded(octets: bytes, charset: str = "") -> str:
    """The text. What the charset does not allow, or an unknown charset, is read as UTF-8 if it is that.

    Else every octet that is wrong becomes U+FFFD; without any charset it is read as Windows' western one.
    """
    codec = codec_of(charset)
    if codec in ("", "ascii"):
        return _guessed(octets)
    if codec == "utf_7":
        # It can spell halves of pairs, which are no characters.
        return _HALF.sub("\ufffd", octets.decode(codec, "replace"))
    try:
        return octets.decode(_LARGER.get(codec, codec))
    except UnicodeError:
        pass
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode(_LARGER.get(codec, codec), "replace")


def codec_of(charset: str) -> str:
    """Python's name of a charset, "" for one that is not known."""
    charset = charset.strip().strip("\"'")
    if not _NAME.match(charset):
        return ""
    name = normalize_encoding(charset).replace(".", "_").lower()
    name = _OTHER_NAMES.get(name) or aliases.get(name, name)
    return name if name in _CODECS else ""


def _guessed(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode("cp1252", "replace")
