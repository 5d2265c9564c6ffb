"""Our own refusals in the operator's words."""

from __future__ import annotations

import pytest

from posthouse.admission import replies as policy
from posthouse.mail.refusal import explain_refusal
from posthouse.mail.reply import EnhancedCode, Reply
from posthouse.protocol import smtp_order

# Its own text says all: the domain of the sender's program is at fault, and no mail was judged.
PLAIN = {(5, 5, 1), (5, 5, 2), (5, 5, 6)}


def refusals() -> list[Reply]:
    """All that is in the tables of policy and of the protocol."""
    named = [*vars(policy).values(), *vars(smtp_order).values()]
    return [each for each in named if isinstance(each, Reply) and each.code >= 400]


@pytest.mark.parametrize("refusal", refusals(), ids=str)
def test_every_refusal_is_explained(refusal: Reply) -> None:
    code = refusal.enhanced
    assert code is not None
    if (code.klass, code.subject, code.detail) not in PLAIN:
        sentence, advice = explain_refusal(refusal, logged_in=False)
        assert sentence.endswith(".")
        assert advice


def test_one_code_means_another_thing_to_who_is_logged_in() -> None:
    stranger = explain_refusal(policy.RELAY_REFUSED, logged_in=False)
    login = explain_refusal(policy.NOT_YOUR_IDENTITY, logged_in=True)
    assert "stranger" in stranger[0]
    assert "posthouse alias add" in login[1]


def test_what_is_no_reply_of_ours_is_not_explained() -> None:
    assert explain_refusal(Reply(550, None, "x"), logged_in=False) == ()
    assert explain_refusal(Reply(550, EnhancedCode(5, 9, 9), "x"), logged_in=False) == ()
