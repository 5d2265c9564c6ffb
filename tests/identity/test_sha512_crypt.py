"""SHA-512 crypt: the vectors of its specification, and what is no hash."""

from __future__ import annotations

import pytest

from posthouse.identity.sha512_crypt import parse_sha512_crypt, sha512_crypt

VECTORS = [
    (
        "$6$saltstring",
        "Hello world!",
        5000,
        "svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
    ),
    (
        "$6$rounds=10000$saltstringsaltst",
        "Hello world!",
        10000,
        "OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
    ),
    (
        "$6$rounds=5000$toolongsaltstrin",
        "This is just a test",
        5000,
        "lQ8jolhgVRVhY4b5pZKaysCLi0QBxGoNeKQzQ3glMhwllF7oGDZxUhx1yxdYcz/e1JSbq3y6JMxxl8audkUEm0",
    ),
    (
        "$6$rounds=1400$anotherlongsalts",
        "a very much longer text to encrypt.  This one even stretches over morethan one line.",
        1400,
        "POfYwTEok97VWcjxIiSOjiykti.o/pQs.wPvMxQ6Fm7I6IoYN3CmLs66x9t0oSwbtEW7o7UmJEiDwGqd8p4ur1",
    ),
    (
        "$6$rounds=1000$roundstoolow",
        "the minimum number is still observed",
        1000,
        "kUMsbe306n21p9R.FRkW3IGn.S9NPN0x50YhH1xhLsPuWGsUSklZt58jaTfF4ZEQpyUNGc0dqbpBYYBaHHrsX.",
    ),
]


@pytest.mark.parametrize(("settings", "password", "rounds", "checksum"), VECTORS)
def test_the_vectors_of_the_specification(settings: str, password: str, rounds: int, checksum: str) -> None:
    salt = settings.rpartition("$")[2].encode()
    assert sha512_crypt(password.encode(), salt, rounds) == checksum
    assert parse_sha512_crypt(f"{settings}${checksum}") == (salt, rounds, checksum)


def test_rounds_have_bounds() -> None:
    _settings, _password, _rounds, checksum = VECTORS[0]
    assert parse_sha512_crypt(f"$6$rounds=10$s${checksum}")[1] == 1000
    assert parse_sha512_crypt(f"$6$rounds=999999999$s${checksum}")[1] == 999_999_999


@pytest.mark.parametrize(
    "text", ["", "$6$", "$6$s$x", "$5$s$" + "a" * 86, "$6$s$" + "!" * 86, "$6$rounds=x$s$" + "a" * 86]
)
def test_what_is_no_hash(text: str) -> None:
    with pytest.raises(ValueError, match="malformed"):
        parse_sha512_crypt(text.replace("%s", "a" * 86))
