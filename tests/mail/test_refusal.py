"""Our own refusals in the operator's words."""

from __future__ import annotations

import pytest

from posthouse.admission import replies as policy
from posthouse.mail.refusal import REASONS, explain_refusal, refusal_reason
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


@pytest.mark.parametrize("refusal", refusals(), ids=str)
def test_every_refusal_is_counted_under_a_reason(refusal: Reply) -> None:
    assert refusal_reason(refusal, logged_in=False) in set(REASONS) - {"other"}


def test_the_reasons_that_operators_ask_about() -> None:
    assert refusal_reason(policy.NO_SUCH_MAILBOX, logged_in=False) == "unknown_recipient"
    assert refusal_reason(policy.RELAY_REFUSED, logged_in=False) == "relaying"
    assert refusal_reason(policy.NOT_YOUR_IDENTITY, logged_in=True) == "not_yours"
    assert refusal_reason(Reply(421, EnhancedCode(4, 7, 0), "x"), logged_in=False) == "limit"
    assert refusal_reason(Reply(550, None, "x"), logged_in=False) == "other"
    assert refusal_reason(Reply(550, EnhancedCode(5, 9, 9), "x"), logged_in=False) == "other"


def test_one_code_means_another_thing_to_who_is_logged_in() -> None:
    stranger = explain_refusal(policy.RELAY_REFUSED, logged_in=False)
    login = explain_refusal(policy.NOT_YOUR_IDENTITY, logged_in=True)
    assert "stranger" in stranger[0]
    assert "posthouse alias add" in login[1]


def test_what_is_no_reply_of_ours_is_not_explained() -> None:
    assert explain_refusal(Reply(550, None, "x"), logged_in=False) == ()
    assert explain_refusal(Reply(550, EnhancedCode(5, 9, 9), "x"), logged_in=False) == ()
