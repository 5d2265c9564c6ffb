"""Hashes of other systems, made by other programs of one password, and what is refused as one."""

from __future__ import annotations

import base64
import hashlib

import pytest

from posthouse.identity.hashes import hash_password, is_outdated, matches, parse_hash

PASSWORD = "p\u00e4ssw\u00f6rd"
ARGON2ID = "$argon2id$v=19$m=64,t=1,p=2$LpdEtKVLYakrgsTMTwP+ZQ$mUQ6XIrwHKqZiOP344UyWrVG20pgnRcg8i+dQMUANMs"
BCRYPT = "$2b$04$mgnv6BMbcKrP5iYQLYF5T.12zmySHXwtIC8l2eybSefqaH93H7ayW"
SHA512 = "$6$saltsalt$TQjRhpJdqmLx0U8it3EsUajwkmOMMvw5vhUFc7mohzFFoj/QHrfYUHU1oSkwyCEoTUCDOiAOW135nel3bqtKe."
SSHA512 = base64.b64encode(hashlib.sha512(PASSWORD.encode() + b"salt").digest() + b"salt").decode()


@pytest.mark.conformance("C301", "C317")
@pytest.mark.parametrize(
    ("text", "verifier"),
    [
        ("{ARGON2ID}" + ARGON2ID, ARGON2ID),
        (ARGON2ID, ARGON2ID),
        ("{BLF-CRYPT}" + BCRYPT, "{BLF-CRYPT}" + BCRYPT),
        ("{blf-crypt}" + BCRYPT.replace("2b", "2y"), "{BLF-CRYPT}" + BCRYPT.replace("2b", "2y")),
        ("{CRYPT}" + BCRYPT.replace("2b", "2a"), "{BLF-CRYPT}" + BCRYPT.replace("2b", "2a")),
        ("{SHA512-CRYPT}" + SHA512, "{SHA512-CRYPT}" + SHA512),
        ("{CRYPT}" + SHA512, "{SHA512-CRYPT}" + SHA512),
        ("{SSHA512}" + SSHA512, "{SSHA512}" + SSHA512),
    ],
)
def test_what_others_left_is_checked(text: str, verifier: str) -> None:
    assert parse_hash(text) == verifier
    assert matches(verifier, PASSWORD)
    assert not matches(verifier, PASSWORD + "x")
    assert not matches(verifier, "")
    assert not matches(verifier, "\udc80" * 500)
    assert is_outdated(verifier)


def test_bcrypt_ignores_what_is_beyond_72_octets() -> None:
    import bcrypt

    verifier = "{BLF-CRYPT}" + bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    assert matches(verifier, "x" * 72)
    assert matches(verifier, "x" * 100)
    assert not matches(verifier, "x" * 71)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "none of"),
        ("secret", "none of"),
        ("{PLAIN}secret", "none of"),
        ("{MD5-CRYPT}$1$x$y", "none of"),
        ("{CRYPT}abJnggxhB/yWI", "none of"),
        ("{SHA256}" + "0" * 64, "none of"),
        ("{CRYPT}{CRYPT}" + SHA512, "none of"),
        ("{ARGON2ID}" + ARGON2ID.replace("argon2id", "argon2i"), "not Argon2id"),
        ("{ARGON2ID}" + ARGON2ID.replace("m=64", "m=4194304"), "more memory"),
        ("{ARGON2ID}" + ARGON2ID.replace("t=1", "t=1000"), "more memory or passes"),
        ("{ARGON2ID}$argon2id$", "malformed"),
        ("{ARGON2ID}" + ARGON2ID[:-60], "malformed"),
        ("{BLF-CRYPT}" + BCRYPT[:-1], "malformed"),
        ("{BLF-CRYPT}" + BCRYPT + "\n", "malformed"),
        ("{BLF-CRYPT}" + BCRYPT.replace("2b", "2x"), "malformed"),
        ("{BLF-CRYPT}" + BCRYPT.replace("$04$", "$31$"), "cost"),
        ("{BLF-CRYPT}" + BCRYPT.replace("$04$", "$00$"), "cost"),
        ("{SHA512-CRYPT}" + SHA512[:-1], "malformed"),
        ("{SHA512-CRYPT}" + SHA512.replace("$6$", "$6$rounds=900000000$"), "rounds"),
        ("{SSHA512}!", "base64"),
        ("{SSHA512}\u00e4", "base64"),
        ("{SSHA512}" + base64.b64encode(b"x" * 64).decode(), "salt"),
        ("{SSHA512}" + base64.b64encode(b"x" * 200).decode(), "salt"),
    ],
)
def test_what_is_no_hash(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_hash(text)


@pytest.mark.parametrize(
    "verifier", ["", "{", "{SHA512-CRYPT}x", "{BLF-CRYPT}x", "{SSHA512}x", "{SSHA512}", "{NEW}x", "$argon2id$", "x"]
)
def test_an_unreadable_verifier_matches_nothing(verifier: str) -> None:
    for password in ("", "x"):
        assert not matches(verifier, password)


@pytest.mark.parametrize("password", ["", "\u00e4" * 513, "a\0b"])
def test_passwords_that_cannot_be_chosen(password: str) -> None:
    with pytest.raises(ValueError, match="password"):
        hash_password(password)


@pytest.mark.conformance("C301")
def test_what_is_chosen_is_argon2id_with_a_salt_of_its_own() -> None:
    first, second = hash_password("x" * 1024), hash_password("x" * 1024)
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert first != second
    assert not is_outdated(first)
    assert matches(first, "x" * 1024)
    assert not matches(first, "x" * 1023)
