"""Room in maildrops, asked at RCPT: 452 for now, 552 for ever."""

from __future__ import annotations

import pytest

from posthouse.admission.quota import over_quota
from posthouse.admission.routing import Routed
from posthouse.mail.account import Mailbox
from posthouse.mail.address import parse_address
from posthouse.mail.ids import AccountId
from tests.admission.test_routing import Names


def box(number: int, quota_octets: int | None) -> Mailbox:
    return Mailbox(AccountId(number), f"{number}@here.test", quota_octets)


def routed(*mailboxes: Mailbox) -> Routed:
    return Routed(mailboxes={m.account: (m, parse_address(m.login)) for m in mailboxes})


@pytest.mark.conformance("C148")
@pytest.mark.parametrize(
    ("quota_octets", "used_octets", "size_octets", "answer"),
    [
        (None, 10**12, 10**12, ""),
        (1000, 0, None, ""),
        (1000, 999, None, ""),
        (1000, 1000, None, "452 4.2.2"),
        (1000, 5000, None, "452 4.2.2"),
        (1000, 400, 600, ""),
        (1000, 401, 600, "452 4.2.2"),
        (1000, 0, 1000, ""),
        (1000, 0, 1001, "552 5.2.2"),
        (1000, 1000, 0, "452 4.2.2"),
        (0, 0, None, "552 5.2.2"),
        (0, 0, 0, "552 5.2.2"),
    ],
)
async def test_room(quota_octets: int | None, used_octets: int, size_octets: int | None, answer: str) -> None:
    names = Names()
    names.used[AccountId(1)] = used_octets
    refusal = await over_quota(names, routed(box(1, quota_octets)), size_octets)
    assert str(refusal or "")[:9] == answer


async def test_an_alias_has_room_if_all_have() -> None:
    names = Names()
    names.used[AccountId(2)] = 1000
    assert await over_quota(names, routed(box(1, 1000), box(3, None)), 10) is None
    full = await over_quota(names, routed(box(1, 1000), box(2, 1000), box(3, None)), 10)
    never = await over_quota(names, routed(box(2, 1000), box(4, 5)), 10)
    assert [str(full)[:9], str(never)[:9]] == ["452 4.2.2", "552 5.2.2"]
