"""What our own refusals mean to the operator of this house, and what to do where the mail was wanted.

`explain` speaks to a sender about another house. Here it is ours that said no, and its operator who reads.
"""

from __future__ import annotations

from posthouse.mail.explain import trusted_enhanced
from posthouse.mail.reply import Reply

_PROGRAM = "The sending program has to be mended; there is nothing to set here."
_SENDER = "The sender has to mend the address."
_LIMITS = "If it was a right sender: the limits are in [reception] of the configuration."
_LOG = "If it lasts, the log says why."

_REASONS: dict[tuple[int, int], str] = {
    (1, 1): "unknown_recipient",
    (2, 2): "mailbox_full",
    (3, 0): "storage",
    (3, 1): "storage",
    (3, 2): "closing",
    (3, 4): "too_large",
    (4, 2): "too_slow",
    (4, 3): "storage",
    (4, 4): "dns",
    (4, 6): "loop",
    (5, 3): "limit",
    (6, 0): "content",
    (6, 7): "address",
    (6, 11): "content",
    (7, 8): "login",
    (7, 11): "login",
    (7, 27): "sender",
}
REASONS = tuple(dict.fromkeys((*_REASONS.values(), "not_yours", "relaying", "syntax", "other")))

# (subject, detail) of the enhanced code: (sentence, what to do).
_REFUSALS: dict[tuple[int, int], tuple[str, str]] = {
    (1, 1): (
        "Nobody has this address.",
        "If somebody should: posthouse account add ADDRESS, or posthouse alias add ADDRESS TARGET",
    ),
    (1, 2): ("The recipient's domain does not exist, or takes no mail.", _SENDER),
    (1, 3): ("The recipient's address is not written as an address must be.", _SENDER),
    (1, 7): ("The sender's address is not written as an address must be.", _SENDER),
    (1, 10): ("The recipient's domain says that it takes no mail at all (null MX).", _SENDER),
    (2, 2): (
        "The mailbox has no room for it.",
        "Its owner can delete mail; see: posthouse account list. More room: posthouse account quota ADDRESS SIZE",
    ),
    (3, 0): ("This house could not do it at that moment.", _LOG),
    (3, 1): ("The disk has no room.", "Make room where data_dir is: until then no mail is taken."),
    (3, 2): ("The house was closing.", "Senders come back by themselves."),
    (3, 4): (
        "It is larger than the largest message taken here.",
        "If it should be taken: reception.message_size_octets in the configuration.",
    ),
    (4, 2): ("The peer was too slow, or silent.", _LIMITS),
    (4, 6): ("It goes in circles, or through an alias that leads nowhere.", "Look at: posthouse alias list"),
    (5, 3): ("It had too many recipients at once.", "Mail servers send the rest by themselves. " + _LIMITS),
    (5, 4): ("The peer gave a command a parameter that is not offered here.", _PROGRAM),
    (6, 0): ("The header section is not as it must be.", _PROGRAM),
    (6, 7): ("An address had letters beyond ASCII, without SMTPUTF8.", _PROGRAM),
    (6, 11): ("It held a bare CR or LF, with which a second message can be smuggled in.", _PROGRAM),
    (7, 27): (
        "The domain of the sender's address says that it takes no mail (null MX), so it could never be answered.",
        f"{_SENDER} To take such mail in any case: reception.refuse_null_mx_senders = false in the configuration.",
    ),
    (7, 8): ("The login or the password was wrong.", "If it was forgotten: posthouse account password ADDRESS"),
    (7, 11): ("The program wanted to log in without TLS.", "Turn on TLS (STARTTLS) in the mail program."),
}
_CLOSED = ("The session did more than one may.", _LIMITS)
_LOGIN_NEEDED = (
    "The program did not log in.",
    "Turn on the login in the mail program. Other houses' mail comes in by listen.smtp, where none is needed.",
)
_NOT_YOURS = (
    "The login may not send as this address.",
    "If it should: posthouse alias add ADDRESS LOGIN, which also brings the address's mail there; for an address of "
    "another house's domain: posthouse identity add ADDRESS --account LOGIN",
)
_NO_RELAY = (
    "It is for a domain that is not of this house, from a stranger.",
    "Your own people use listen.submission or submissions, and log in; a domain of yours: posthouse domain add NAME",
)


def refusal_reason(reply: Reply, *, logged_in: bool) -> str:
    """Which of REASONS it was: few enough to count each."""
    code = trusted_enhanced(reply)
    if code is None:
        return "other"
    match (code.klass, code.subject, code.detail):
        case (5, 7, 0):
            return "login"
        case (5, 7, 1):
            return "not_yours" if logged_in else "relaying"
        case (4, 7, 0):
            return "limit"
    by_subject = {1: "address", 5: "syntax"}
    return _REASONS.get((code.subject, code.detail)) or by_subject.get(code.subject, "other")


def explain_refusal(reply: Reply, *, logged_in: bool) -> tuple[str, ...]:
    """A sentence, and what to do about it; nothing where there is nothing to add to the reply's own text."""
    code = trusted_enhanced(reply)
    if code is None:
        return ()
    match (code.klass, code.subject, code.detail):
        case (5, 7, 0):
            return _LOGIN_NEEDED
        case (5, 7, 1):
            return _NOT_YOURS if logged_in else _NO_RELAY
        case (4, 7, 0):
            return _CLOSED
    return _REFUSALS.get((code.subject, code.detail), ())
