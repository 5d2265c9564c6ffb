"""SHA-512 crypt, `$6$…`, by U. Drepper's public specification "Unix crypt using SHA-256 and SHA-512" (0.6).

Python's own `crypt` is gone since 3.13, and asked the system's library, which not every system has.
"""

from __future__ import annotations

import hashlib
import re

DEFAULT_ROUNDS = 5000
_LEAST_ROUNDS, _MOST_ROUNDS = 1000, 999_999_999
_SALT_OCTETS = 16
_HASH_OCTETS = 64
_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(r"\$6\$(?:rounds=([0-9]{1,9})\$)?([!-#%-~]{0,16})\$([./0-9A-Za-z]{86})\Z")


def parse_sha512_crypt(text: str) -> tuple[bytes, int, str]:
    """The salt, the rounds and the checksum of a hash. Raises ValueError."""
    match = _FORM.match(text)
    if match is None:
        raise ValueError("the {SHA512-CRYPT} hash is malformed")
    rounds = DEFAULT_ROUNDS if match[1] is None else min(max(int(match[1]), _LEAST_ROUNDS), _MOST_ROUNDS)
    return match[2].encode(), rounds, match[3]


def sha512_crypt(password: bytes, salt: bytes, rounds: int) -> str:
    """The 86 characters that follow the salt."""
    salt = salt[:_SALT_OCTETS]
    digest = _first_digest(password, salt)
    repeated_password = _stretched(hashlib.sha512(password * len(password)).digest(), len(password))
    repeated_salt = _stretched(hashlib.sha512(salt * (16 + digest[0])).digest(), len(salt))
    for number in range(rounds):
        odd = number % 2
        parts = (
            repeated_password if odd else digest,
            repeated_salt if number % 3 else b"",
            repeated_password if number % 7 else b"",
            digest if odd else repeated_password,
        )
        digest = hashlib.sha512(b"".join(parts)).digest()
    return _spelled(digest)


def _first_digest(password: bytes, salt: bytes) -> bytes:
    inner = hashlib.sha512(password + salt + password).digest()
    outer = hashlib.sha512(password + salt + _stretched(inner, len(password)))
    length = len(password)
    while length:
        outer.update(inner if length & 1 else password)
        length >>= 1
    return outer.digest()


def _stretched(digest: bytes, octets: int) -> bytes:
    return (digest * (octets // _HASH_OCTETS + 1))[:octets]


def _spelled(digest: bytes) -> str:
    """Base 64 of its own kind: groups of three octets that are taken from all over, lowest bits first."""
    text = []
    for group in range(21):
        first, second, third = (digest[(group * 22 + shift) % 63] for shift in (0, 21, 42))
        text.append(_sextets(first << 16 | second << 8 | third, 4))
    return "".join(text) + _sextets(digest[63], 2)


def _sextets(number: int, count: int) -> str:
    return "".join(_ALPHABET[number >> 6 * place & 63] for place in range(count))
