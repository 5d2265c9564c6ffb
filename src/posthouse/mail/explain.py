"""What a reply means in plain words, whose side it is on, and what to do about it.

From the enhanced status code first (RFC 3463, RFC 5248 and its registry), then from the basic code (RFC 5321 §4.2.3,
RFC 4954 §6, RFC 7504), then from the first digit. A peer's text is never read for meaning: it may say anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from posthouse.mail.reply import EnhancedCode, Reply


class Side(StrEnum):
    """Who can do something about it."""

    ADDRESS = "address"
    """No server is at fault: it is the address that leads nowhere."""
    RECIPIENT = "recipient's house"
    SENDER = "sender"
    OURS = "ours"
    NETWORK = "network"
    UNKNOWN = "unknown"


_CAUSES = {
    Side.ADDRESS: " The cause is the address.",
    Side.RECIPIENT: " The cause is at the recipient's house.",
    Side.SENDER: " The cause is on the sender's side.",
    Side.OURS: " The cause is at this house.",
    Side.NETWORK: " The cause is on the way between the two houses.",
    Side.UNKNOWN: "",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """One sentence, whose side it is on, and what to do; sentences end with a full stop."""

    sentence: str
    side: Side
    advice: str

    @property
    def with_cause(self) -> str:
        """The sentence, and one about whose side it is on."""
        return f"{self.sentence}{_CAUSES[self.side]}"


_MENDS = "Nothing yet: it is tried again by itself. If it lasts: "
_REPLY = re.compile(r"([2-5]\d\d)(?:[ -](\d)\.(\d{1,3})\.(\d{1,3})(?=[ \n]|\Z))?(?:[ -](.*))?\Z", re.DOTALL)

_A, _R, _S, _O, _N, _U = Side.ADDRESS, Side.RECIPIENT, Side.SENDER, Side.OURS, Side.NETWORK, Side.UNKNOWN
_SPELLING = "Check the spelling of the address, or ask the recipient for the right one another way."
_POSTMASTER = "Write to the postmaster of the recipient's domain, and quote the server's answer."
_LATER = "Send it again later; if that fails too, write to the postmaster of the recipient's domain."
OUR_OPERATOR = "Show this to the operator of your own mail system; the answer tells what to look for."
_OUR_LOGIN = "Show this to the operator of your own mail system, whose login there has to be mended."
_RIGHT_ADDRESS = "Ask the recipient for the right address another way."
_SMALLER = "Send a smaller message, or put the large part where it can be fetched by a link."
_AUTHENTICATION = (
    "Show this to the operator of the domain in your address: its SPF, DKIM or DMARC records have to fit the host that "
    "sends its mail."
)
_REPUTATION = (
    "Show this to the operator of your own mail system: the other one mistrusts the host that it sends from. Its "
    "answer often says where to ask for a change."
)
_FORM = "Write the message again in a usual mail program, and send that."
_ASCII = "Use an address of plain letters, if the recipient or you have one."
_PLAIN_TEXT = "Write it without letters beyond ASCII, such as accents, and send that."
_FEWER = "Send less at a time."

# (subject, detail) of the enhanced code: (sentence, side, advice). One table serves the classes 4 and 5.
_ENHANCED: dict[tuple[int, int], tuple[str, Side, str]] = {
    (1, 0): ("Something is wrong with the address.", _A, _SPELLING),
    (1, 1): ("There is no mailbox of that name there.", _A, _SPELLING),
    (1, 2): ("The domain of the address does not exist, or takes no mail.", _A, _SPELLING),
    (1, 3): ("The address is not written as an address must be.", _A, _SPELLING),
    (1, 4): ("The address fits more than one mailbox there.", _A, _SPELLING),
    (1, 5): ("The address is good.", _U, _LATER),
    (1, 6): ("The mailbox has moved, and left no new address.", _A, _RIGHT_ADDRESS),
    (1, 7): ("The sender's address is not written as an address must be.", _S, "Mend the sender's address."),
    (1, 8): ("The domain of the sender's address does not exist or takes no mail.", _S, "Mend the sender's address."),
    (1, 9): ("The message was passed on to a system that reports nothing back.", _R, "Nothing to do."),
    (1, 10): ("The recipient's domain says that it takes no mail at all (null MX).", _A, _SPELLING),
    (2, 0): ("Something is wrong with the mailbox there.", _R, _LATER),
    (2, 1): ("The mailbox exists, but it is disabled.", _R, _RIGHT_ADDRESS),
    (2, 2): ("The mailbox is full.", _R, "Tell the recipient another way to make room, then send it again."),
    (2, 3): ("The message is larger than this mailbox may take.", _S, _SMALLER),
    (2, 4): ("The mailing list could not be expanded.", _R, "Write to the owner of the list."),
    (3, 0): ("The mail system there has a problem of its own.", _R, _LATER),
    (3, 1): ("The mail system there has no room left.", _R, _POSTMASTER),
    (3, 2): ("The mail system there takes no mail at the moment.", _R, _LATER),
    (3, 3): ("The mail system there lacks something that the message needs.", _R, _FORM),
    (3, 4): ("The message is larger than the mail system there takes.", _S, _SMALLER),
    (3, 5): ("A mail system is set up wrongly.", _R, _POSTMASTER),
    (3, 6): ("The priority that was asked for was changed.", _R, "Nothing to do."),
    (4, 0): ("Something went wrong on the way to the other server.", _N, _LATER),
    (4, 1): (
        "The other server does not answer.",
        _N,
        "Check the part of the address after the @; the server of that domain may be down.",
    ),
    (4, 2): ("The connection to the other server broke off.", _N, _LATER),
    (4, 3): ("A directory that is needed to find the way does not answer.", _N, OUR_OPERATOR),
    (4, 4): ("No server that takes mail for this domain could be found.", _A, _SPELLING),
    (4, 5): ("The other server has too much to do.", _R, _LATER),
    (4, 6): ("The message goes in circles between servers.", _R, _POSTMASTER),
    (4, 7): (
        "It could not be delivered in the time allowed.",
        _N,
        "Reach the recipient another way, or send it again.",
    ),
    (5, 0): ("The two servers did not understand each other.", _O, OUR_OPERATOR),
    (5, 1): ("The other server does not allow this command here.", _O, OUR_OPERATOR),
    (5, 2): ("The other server could not read a command.", _O, OUR_OPERATOR),
    (5, 3): ("The message has too many recipients at once.", _S, "Send it to fewer recipients at a time."),
    (5, 4): ("The other server does not take a parameter of a command.", _O, OUR_OPERATOR),
    (5, 5): ("The two servers speak different versions of the protocol.", _O, OUR_OPERATOR),
    (5, 6): ("The data of the login are longer than the other server takes.", _O, _OUR_LOGIN),
    (6, 0): ("The server does not accept the form of the content.", _S, _FORM),
    (6, 1): ("The server does not accept this kind of content.", _S, _FORM),
    (6, 2): ("The content would have to be converted, which is not allowed.", _S, _PLAIN_TEXT),
    (6, 3): ("A server on the way is too old for content with letters beyond ASCII.", _R, _PLAIN_TEXT),
    (6, 4): ("The content was converted, and lost something by it.", _R, "Nothing to do."),
    (6, 5): ("The content could not be converted.", _S, _FORM),
    (6, 6): ("The content is not available.", _S, "Send it again."),
    (6, 7): ("A server on the way does not take addresses with letters beyond ASCII.", _R, _ASCII),
    (6, 8): ("A reply with letters beyond ASCII was needed and is not possible.", _R, _ASCII),
    (6, 9): ("The header's letters beyond ASCII could not be delivered there.", _R, _PLAIN_TEXT),
    (6, 10): ("Its internationalised header could not be passed on.", _R, _PLAIN_TEXT),
    (6, 11): ("The message contains something that servers must not pass on, such as a bare line end.", _S, _FORM),
    (7, 0): ("The server refuses it for reasons of security or policy.", _R, _POSTMASTER),
    (7, 1): ("The other server's rules do not allow this message, or it takes it for spam.", _R, _POSTMASTER),
    (7, 2): ("The sender may not write to this mailing list.", _S, "Write to the owner of the list."),
    (7, 3): ("A security conversion was needed and is not possible.", _R, _POSTMASTER),
    (7, 4): ("The server lacks a security feature that was asked for.", _R, _POSTMASTER),
    (7, 5): ("The encryption, or the proof of who the other server is, failed.", _U, OUR_OPERATOR),
    (7, 6): ("The server does not know the cryptographic method.", _U, _POSTMASTER),
    (7, 7): ("The message was altered on the way.", _U, "Send it again."),
    # To us, as a client: it is our login there, not the sender's here.
    (7, 8): ("The other server refuses our login: its name or password is wrong.", _O, _OUR_LOGIN),
    (7, 9): ("Our way of logging in is too weak for the other server.", _O, _OUR_LOGIN),
    (7, 10): ("An encrypted connection is needed, and could not be had.", _U, OUR_OPERATOR),
    (7, 11): ("The other server asks for an encrypted connection before our login.", _O, _OUR_LOGIN),
    (7, 12): ("The password of our login at the other server must be changed.", _O, _OUR_LOGIN),
    (7, 13): ("Our account at the other server is disabled.", _O, _OUR_LOGIN),
    (7, 14): ("The server lacks an agreement with a third server.", _O, OUR_OPERATOR),
    (7, 15): ("The message is not important enough for the server at the moment.", _S, _LATER),
    (7, 16): ("The message is too large for its priority.", _S, _SMALLER),
    (7, 17): ("The mailbox has changed its owner.", _R, _RIGHT_ADDRESS),
    (7, 18): ("The domain has changed its owner.", _R, _RIGHT_ADDRESS),
    (7, 19): ("The server cannot check whether the owner is still the same.", _R, _POSTMASTER),
    (7, 20): ("The message has no DKIM signature that holds.", _S, _AUTHENTICATION),
    (7, 21): ("The message has no DKIM signature that the server accepts.", _S, _AUTHENTICATION),
    (7, 22): ("No DKIM signature that holds is of the author's domain.", _S, _AUTHENTICATION),
    (7, 23): ("The sender's domain does not allow the sending host to send for it (SPF).", _S, _AUTHENTICATION),
    (7, 24): ("The SPF record of the sender's domain could not be used.", _S, _AUTHENTICATION),
    (7, 25): ("The sending host's address has no name that leads back to it (reverse DNS).", _O, OUR_OPERATOR),
    (7, 26): ("The message failed more than one check of its origin.", _S, _AUTHENTICATION),
    (7, 27): ("The domain of the sender's address takes no mail (null MX).", _S, "Mend the sender's address."),
    (7, 28): ("Too much mail came at once.", _S, _FEWER),
    (7, 29): ("A seal of a server on the way is not valid (ARC).", _U, _POSTMASTER),
    (7, 30): (
        "The message asks for TLS on the whole way, which was not to be had.",
        _R,
        "Send it without that demand.",
    ),
}

# Where the class changes the sense: the whole code.
_EXACT: dict[tuple[int, int, int], tuple[str, Side, str]] = {
    (2, 1, 5): ("The recipient's address is good.", _R, "Nothing to do."),
    (2, 4, 7): ("It was passed on late.", _R, "Nothing to do."),
    (4, 2, 0): (
        "The mailbox takes nothing now, often because its server does not know the sender yet.",
        _R,
        _POSTMASTER,
    ),
    (4, 2, 1): ("The mailbox takes no mail at the moment.", _R, _LATER),
    (4, 3, 0): ("A mail system has a passing problem of its own.", _R, _LATER),
    (4, 4, 6): ("Too many servers have passed the message on.", _R, _POSTMASTER),
    (4, 3, 5): ("A next hop that your own mail system is set to use cannot be found.", _O, OUR_OPERATOR),
    (5, 4, 1): ("The other server says that nobody has this address, or that it takes no mail for it.", _A, _SPELLING),
    (4, 7, 0): ("The server wants to see the sender again later, or suspects too much mail.", _R, _POSTMASTER),
    (4, 7, 1): ("The server does not take it now, often because it does not know the sender yet.", _R, _POSTMASTER),
}

# Details that are in no registry, but that large providers answer, each with a meaning that they have published.
_PROVIDERS: dict[tuple[int, int], tuple[str, Side, str]] = {
    (1, 351): ("The recipient's mail system cannot find the mailbox.", _A, _SPELLING),
    (2, 121): ("The recipient gets too much mail from one sender at the moment.", _S, _FEWER),
    (2, 122): ("The recipient gets too much mail at the moment.", _R, _LATER),
    (4, 14): ("Too many servers have passed the message on; it goes in circles.", _R, _POSTMASTER),
    (4, 300): ("It could not be delivered there in the time allowed.", _R, _LATER),
    (4, 310): ("The domain of the address does not exist.", _A, _SPELLING),
    (4, 312): ("The name servers do not answer.", _N, _LATER),
    (4, 316): ("The recipient's server refuses the connection.", _R, _LATER),
    (7, 40): ("The domain in the sender's address has no DMARC record that the server accepts.", _S, _AUTHENTICATION),
    **dict.fromkeys(
        ((7, 124), (7, 133), (7, 134), (7, 136), (7, 193)),
        (
            "The recipient takes mail from chosen senders only, and you are none of them.",
            _R,
            "Ask the recipient another way to be let in.",
        ),
    ),
    **dict.fromkeys(
        ((7, 350), (7, 520)),
        ("The rules of a mail system on the way forbid to pass it on.", _R, _POSTMASTER),
    ),
    **dict.fromkeys(
        ((7, 509), (7, 515)),
        ("The message did not prove that it comes from its sender's domain (SPF, DKIM, DMARC).", _S, _AUTHENTICATION),
    ),
    **dict.fromkeys(
        (
            *((7, detail) for detail in (506, 508, 511, 512, 513, 708, 750)),
            *((7, detail) for detail in range(606, 650)),
        ),
        ("The other server blocks the host that your mail is sent from.", _O, _REPUTATION),
    ),
    **dict.fromkeys(
        ((7, 500), (7, 501), (7, 650), (7, 705)),
        ("Too much mail came at once.", _S, _FEWER),
    ),
}

_BASIC: dict[int, tuple[str, Side, str]] = {
    220: ("The server is ready.", _R, "Nothing to do."),
    221: ("The server closes the connection, as agreed.", _R, "Nothing to do."),
    235: ("The login succeeded.", _S, "Nothing to do."),
    250: ("The server did what was asked.", _R, "Nothing to do."),
    251: ("The recipient is elsewhere, and the server passes the mail on.", _R, "Nothing to do."),
    252: ("The server does not say whether the recipient exists, but takes the mail.", _R, "Nothing to do."),
    334: ("The server asks for the next step of the login.", _S, "Nothing to do."),
    354: ("The server waits for the message.", _S, "Nothing to do."),
    421: ("The other server is closing the connection: it is busy, or shutting down.", _R, _LATER),
    432: ("The password of our login at the other server must be changed.", _O, _OUR_LOGIN),
    450: ("The mailbox cannot be used at the moment.", _R, _LATER),
    451: ("The other server has an error of its own.", _R, _LATER),
    452: ("The other server has no room for more at the moment.", _R, _LATER),
    454: ("The server cannot do that now: TLS or the login has a passing failure.", _R, _LATER),
    455: ("The other server cannot take the parameters at the moment.", _R, _LATER),
    500: ("The other server did not recognise a command.", _O, OUR_OPERATOR),
    501: ("The other server did not accept an address or parameter.", _A, _SPELLING),
    502: ("The other server does not implement a command.", _O, OUR_OPERATOR),
    503: ("The commands came in the wrong order.", _O, OUR_OPERATOR),
    504: ("The other server does not know a parameter of a command.", _O, OUR_OPERATOR),
    521: ("The other host takes no mail at all.", _A, _SPELLING),
    523: ("The other server asks for an encrypted connection first.", _O, OUR_OPERATOR),
    530: ("The other server asks for a login or an encrypted connection first.", _O, _OUR_LOGIN),
    534: ("Our way of logging in is too weak for the other server.", _O, _OUR_LOGIN),
    535: ("The other server refuses our login: its name or password is wrong.", _O, _OUR_LOGIN),
    538: ("The other server asks for an encrypted connection before our login.", _O, _OUR_LOGIN),
    550: ("The other server refuses the mailbox: it does not exist, or its rules forbid it.", _R, _SPELLING),
    551: ("The recipient is not there.", _A, _RIGHT_ADDRESS),
    552: ("The message or the mailbox is over the limit of its size.", _R, _SMALLER),
    553: ("The other server does not accept the name of the mailbox.", _A, _SPELLING),
    554: ("The other server refuses the message.", _R, _POSTMASTER),
    555: ("The other server does not know the parameters of MAIL or RCPT.", _O, OUR_OPERATOR),
    556: ("The recipient's domain takes no mail at all.", _A, _SPELLING),
}

_DIGIT: dict[int, tuple[str, Side, str]] = {
    2: ("The server did what was asked.", _R, "Nothing to do."),
    3: ("The server waits for more.", _S, "Nothing to do."),
    4: ("The server cannot do it now.", _U, _LATER),
    5: ("The server refuses it for good.", _U, _POSTMASTER),
}

_MEANINGS: dict[int, str] = {
    211: "system status",
    214: "help",
    220: "ready",
    221: "closing the connection",
    235: "logged in",
    250: "OK, done",
    251: "not here, but passed on",
    252: "cannot verify, but will take it",
    334: "go on with the login",
    354: "send the message, end with a dot",
    421: "not available now, closing",
    432: "the password needs a new form",
    450: "mailbox not available now",
    451: "an error here, try again later",
    452: "no room now, try again later",
    454: "TLS or login not available now",
    455: "parameters not possible now",
    500: "command not recognised",
    501: "an argument is wrong",
    502: "command not implemented",
    503: "commands in the wrong order",
    504: "parameter not implemented",
    521: "this host takes no mail",
    523: "encrypt the connection first",
    530: "log in or encrypt first",
    534: "this login method is too weak",
    535: "wrong user name or password",
    538: "encrypt before this login method",
    550: "refused: no such mailbox, or policy",
    551: "not here, try elsewhere",
    552: "too large, or mailbox full",
    553: "mailbox name not allowed",
    554: "refused: the transaction failed",
    555: "parameters of MAIL or RCPT unknown",
    556: "the domain takes no mail",
}
_MEANING_OF_DIGIT = {2: "done", 3: "go on", 4: "not now, try again later", 5: "refused for good"}


def explain(reply: Reply, *, final: bool = False) -> Explanation:
    """The reply in plain words. `final`: it will not be tried again, even if the reply is a transient one."""
    sentence, side, advice = _entry(reply)
    if reply.is_transient and not final:
        advice = _MENDS + advice[0].lower() + advice[1:]
    return Explanation(sentence, side, advice)


def meaning(code: int) -> str:
    """A code in a few words, as it stands beside a line of a shown dialogue; "" for what is no reply code."""
    return _MEANINGS.get(code) or _MEANING_OF_DIGIT.get(code // 100, "")


def trusted_enhanced(reply: Reply) -> EnhancedCode | None:
    """The enhanced code if it is a possible one and agrees with the basic code (RFC 2034 §4), else None."""
    code = reply.enhanced
    if code is None or code.klass != reply.code // 100 or code.klass not in (2, 4, 5):
        return None
    return code if 0 <= code.subject <= 999 and 0 <= code.detail <= 999 else None


def reply_from_text(text: str) -> Reply | None:
    """The reply that `str(reply)` was stored of, None where the text does not begin with a reply code."""
    found = _REPLY.match(text)
    if found is None:
        return None
    enhanced = EnhancedCode(int(found[2]), int(found[3]), int(found[4])) if found[2] else None
    return Reply(int(found[1]), enhanced, found[5] or "")


def _entry(reply: Reply) -> tuple[str, Side, str]:
    enhanced = trusted_enhanced(reply)
    found = None
    if enhanced is not None:
        found = _EXACT.get((enhanced.klass, enhanced.subject, enhanced.detail))
        if found is None and enhanced.klass != 2:
            # An unknown detail still has a subject, which says more than the basic code (RFC 3463 §2).
            detail = (enhanced.subject, enhanced.detail)
            found = _ENHANCED.get(detail) or _PROVIDERS.get(detail) or _ENHANCED.get((enhanced.subject, 0))
    found = found or _BASIC.get(reply.code) or _DIGIT.get(reply.code // 100)
    return found or ("The server gave an answer that is none.", _U, _POSTMASTER)
