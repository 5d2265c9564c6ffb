"""How passwords are kept: what is chosen as Argon2id, what is made for a program as SHA-256, and what others left.

Hashes of other systems are taken as Dovecot spells them, checked as they are, and replaced by ours when their owner
logs in. Passwords are prepared as RFC 8265 asks before they are hashed here; foreign hashes were made of raw octets.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re

import argon2
import bcrypt

from posthouse.identity.sha512_crypt import parse_sha512_crypt, sha512_crypt
from posthouse.protocol.sasl import MAX_PASSWORD_OCTETS
from posthouse.protocol.sasl_prepare import opaque_string

APP_PASSWORD_OCTETS = 16
SCHEMES = ("{ARGON2ID}", "{BLF-CRYPT}", "{SHA512-CRYPT}", "{SSHA512}")

_HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
"""OWASP's parameters: 19 MiB and two passes, about 20 ms."""
_APP_PASSWORD = re.compile(r"app(?:-[a-z2-7]{5}){4}-[a-z2-7]{6}\Z")
_APP_SCHEME = "{SHA256}"
_BCRYPT = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}\Z")
_BCRYPT_OCTETS = 72
_SHA512_OCTETS = 64
# A hash that takes minutes to check would stop all other logins: these are some seconds.
_MOST_BCRYPT_COST = 16
_MOST_ARGON2_KIB = 1024 * 1024
_MOST_ARGON2_PASSES = 100
_MOST_ROUNDS = 5_000_000


def hash_password(password: str) -> str:
    """An Argon2id verifier for a chosen password. Raises ValueError, in words for who chose it."""
    octets = password.encode("utf-8", "surrogatepass")
    if not octets or len(octets) > MAX_PASSWORD_OCTETS:
        raise ValueError(f"a password has from 1 to {MAX_PASSWORD_OCTETS} octets")
    if "\0" in password:
        raise ValueError("a password cannot hold NUL")
    if is_app_password(password):
        raise ValueError("this password has the form of an app password; choose another")
    return rehash_password(password)


def rehash_password(password: str) -> str:
    """An Argon2id verifier for a password that has been let in."""
    return _HASHER.hash(_prepared(password))


def make_app_password(octets: bytes) -> str:
    """The spelling of 16 random octets that an app password is: `app-` and 26 letters and digits."""
    text = base64.b32encode(octets).decode().rstrip("=").lower()
    return "-".join(("app", *(text[place : place + 5] for place in range(0, 20, 5)), text[20:]))


def is_app_password(text: str) -> bool:
    """Whether it has the form of one. What has is never a chosen password, and never costs an Argon2 hash."""
    return _APP_PASSWORD.match(text) is not None


def app_verifier(password: str) -> str:
    """The verifier of an app password: nobody guesses 128 random bits, so a fast hash is enough."""
    return _APP_SCHEME + hashlib.sha256(password.encode()).hexdigest()


def matches(verifier: str, password: str) -> bool:
    """Whether the password is the one. Takes long and memory: not for the loop. An unreadable verifier matches none."""
    try:
        if verifier.startswith("{"):
            scheme, _, rest = verifier[1:].partition("}")
            return _matches_foreign(scheme, rest, password.encode("utf-8", "surrogatepass"))
        return _HASHER.verify(verifier, _prepared(password))
    except (argon2.exceptions.VerificationError, ValueError):
        return False


def is_outdated(verifier: str) -> bool:
    """Whether it is not as we hash now, and is replaced at the next login."""
    return verifier.startswith("{") or _HASHER.check_needs_rehash(verifier)


def parse_hash(text: str) -> str:
    """The verifier for a hash of another system, `{SCHEME}…` or, where it shows, without. Raises ValueError."""
    found = re.match(r"\{([A-Za-z0-9.-]+)\}", text)
    rest = text[found.end() :] if found else text
    scheme = found[1].upper() if found else _scheme_of(rest)
    match scheme:
        case "ARGON2ID":
            return _parsed_argon2(rest)
        case "BLF-CRYPT":
            return "{BLF-CRYPT}" + _parsed_bcrypt(rest)
        case "SHA512-CRYPT":
            _salt, rounds, _checksum = parse_sha512_crypt(rest)
            if rounds > _MOST_ROUNDS:
                raise ValueError(f"the hash has more than {_MOST_ROUNDS:,} rounds, which takes too long to check")
            return "{SHA512-CRYPT}" + rest
        case "SSHA512":
            return "{SSHA512}" + _parsed_ssha512(rest)
        case "CRYPT" if _scheme_of(rest):
            return parse_hash(rest)
        case _:
            raise ValueError(f"the password hash is none of {', '.join(SCHEMES)}")


def _prepared(password: str) -> bytes:
    # Whatever a peer sends as text is compared, and is no error.
    return opaque_string(password).encode("utf-8", "surrogatepass")


def _matches_foreign(scheme: str, rest: str, password: bytes) -> bool:
    match scheme:
        case "BLF-CRYPT":
            # bcrypt knows 72 octets; where the hash came from, the rest was ignored.
            return bcrypt.checkpw(password[:_BCRYPT_OCTETS], rest.encode())
        case "SHA512-CRYPT":
            salt, rounds, checksum = parse_sha512_crypt(rest)
            return hmac.compare_digest(sha512_crypt(password, salt, rounds), checksum)
        case "SSHA512":
            octets = base64.b64decode(rest)
            digest, salt = octets[:_SHA512_OCTETS], octets[_SHA512_OCTETS:]
            return hmac.compare_digest(hashlib.sha512(password + salt).digest(), digest)
        case _:
            return False


def _scheme_of(text: str) -> str:
    """The scheme that a hash shows by its own beginning, or ""."""
    prefixes = {"$argon2id$": "ARGON2ID", "$6$": "SHA512-CRYPT"}
    prefixes |= {f"$2{letter}$": "BLF-CRYPT" for letter in "aby"}
    return next((scheme for prefix, scheme in prefixes.items() if text.startswith(prefix)), "")


def _parsed_argon2(text: str) -> str:
    try:
        parameters = argon2.extract_parameters(text)
    except argon2.exceptions.InvalidHashError as exc:
        raise ValueError("the {ARGON2ID} hash is malformed") from exc
    if parameters.type is not argon2.Type.ID:
        raise ValueError("the hash is Argon2, but not Argon2id")
    if parameters.memory_cost > _MOST_ARGON2_KIB or parameters.time_cost > _MOST_ARGON2_PASSES:
        raise ValueError("the {ARGON2ID} hash wants more memory or passes than can be given to a login")
    return text


def _parsed_bcrypt(text: str) -> str:
    match = _BCRYPT.match(text)
    if match is None:
        raise ValueError("the {BLF-CRYPT} hash is malformed")
    if not 4 <= int(match[1]) <= _MOST_BCRYPT_COST:
        raise ValueError(f"the {{BLF-CRYPT}} hash has a cost that is not from 4 to {_MOST_BCRYPT_COST}")
    return text


def _parsed_ssha512(text: str) -> str:
    try:
        octets = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ValueError("the {SSHA512} hash is not base64") from exc
    if not _SHA512_OCTETS < len(octets) <= 2 * _SHA512_OCTETS:
        raise ValueError("the {SSHA512} hash has no salt, or is too short")
    return text
