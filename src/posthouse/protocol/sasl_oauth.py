"""Logging in with an OAuth 2 token: OAUTHBEARER (RFC 7628) and the older XOAUTH2, which some providers want.

A server that does not take the token says why in one more challenge, which is dismissed before it refuses
(RFC 7628 §3.2.3).
"""

from __future__ import annotations

import re
from typing import Final

from posthouse.mail.source import Mechanism
from posthouse.protocol.sasl import MAX_LINE_OCTETS, SaslError, encode_base64

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/\-]+=*\Z")
"""b64token of RFC 6750 §2.1."""
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")


def oauth_message(mechanism: Mechanism, login: str, token: str) -> bytes:
    """The one message of the client, before base64. Raises SaslError, whose text holds no token."""
    if not login or _CONTROLS.search(login):
        raise SaslError("the login cannot be sent with a token")
    if _TOKEN.match(token) is None:
        raise SaslError("the token holds characters that no token has")
    match mechanism:
        case Mechanism.XOAUTH2:
            message = f"user={login}\x01auth=Bearer {token}\x01\x01"
        case Mechanism.OAUTHBEARER:
            # A name in the GS2 header (RFC 5801 §4).
            name = login.replace("=", "=3D").replace(",", "=2C")
            message = f"n,a={name},\x01auth=Bearer {token}\x01\x01"
        case Mechanism.PASSWORD:
            raise SaslError("a password is no token")
    octets = message.encode()
    if len(encode_base64(octets)) + 2 > MAX_LINE_OCTETS:
        raise SaslError("the token is too long")
    return octets


def oauth_dismissal(mechanism: Mechanism) -> bytes:
    """The answer to a challenge that says what is wrong, before base64 (RFC 7628 §3.2.3)."""
    return b"\x01" if mechanism is Mechanism.OAUTHBEARER else b""
