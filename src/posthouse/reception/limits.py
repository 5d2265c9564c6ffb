"""What one SMTP session may take of the house: how much, how often, how long (RFC 5321 §4.5.3).

Each limit has its reply; a session that reaches one is told so before it is closed.
"""

from __future__ import annotations

from dataclasses import dataclass

from posthouse.config import Reception
from posthouse.mail.reply import Reply, reply
from posthouse.mail.world import Clock

RATE_GRACE_S = 30.0
"""How long a peer may be waited for inside content before its rate counts."""

IDLE = reply(421, "4.4.2", "No command came in time; goodbye")
TOO_SLOW = reply(421, "4.4.2", "The content comes too slowly; goodbye")
TOO_LONG = reply(421, "4.4.2", "The session has lasted too long; open another")
TOO_MANY_ERRORS = reply(421, "4.7.0", "Too many errors; goodbye")
TOO_MANY_UNKNOWN = reply(421, "4.7.0", "Too many unknown recipients; goodbye")
TOO_MANY_COMMANDS = reply(421, "4.7.0", "Too many commands without a message; goodbye")
TALKED_EARLY = reply(421, "4.7.0", "You spoke before you were greeted; goodbye")
OUT_OF_STEP = reply(421, "4.7.0", "You sent commands ahead where that is not allowed; goodbye")


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpLimits:
    """Per-session limits. Times in seconds (RFC 5321 §4.5.3.2)."""

    command_timeout_s: float
    content_timeout_s: float
    errors: int
    failed_logins: int = 3
    greeting_delay_s: float = 0.0
    """How long an untrusted peer of the exchange waits for its greeting, and must be silent; 0: not at all."""
    greeting_timeout_s: float = 300.0
    """From our greeting to the peer's."""
    session_timeout_s: float = 4 * 3600.0
    content_rate_octets: int = 100
    """Octets of content that come in a second at least."""
    unknown_recipients: int = 10
    commands: int = 5000
    """Since the last accepted message."""
    strict_pipelining: bool = False

    @classmethod
    def of(cls, reception: Reception) -> SmtpLimits:
        """The limits of a configuration."""
        return cls(
            greeting_delay_s=reception.greeting_delay,
            greeting_timeout_s=reception.greeting_timeout,
            command_timeout_s=reception.command_timeout,
            content_timeout_s=reception.content_timeout,
            content_rate_octets=reception.content_rate_octets,
            session_timeout_s=reception.session_timeout,
            errors=reception.errors,
            unknown_recipients=reception.unknown_recipients,
            commands=reception.commands,
            strict_pipelining=reception.strict_pipelining,
        )


class Pace:
    """How long the session may still be waited for. Never reset by octets alone: a line must have come."""

    def __init__(self, limits: SmtpLimits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._since = clock.monotonic()
        self._ends_at = self._since + limits.session_timeout_s
        self._lines = -1
        self._content_octets = 0
        self._content_waited_s = 0.0
        self.farewell: Reply = IDLE
        """What the peer is told when its time is over."""

    def command_timeout_s(self, lines: int, *, greeted: bool) -> float:
        """Seconds left for the next command. `lines`: how many have come. Raises TimeoutError."""
        now = self._clock.monotonic()
        if lines != self._lines:
            self._lines, self._since = lines, now
        limits = self._limits
        limit_s = limits.command_timeout_s
        if not greeted:
            limit_s = min(limit_s, limits.greeting_timeout_s)
        return self._left(now, self._since + limit_s)

    def begin_content(self) -> None:
        """Content follows; it is measured anew."""
        self._lines = -1
        self._content_octets = 0
        self._content_waited_s = 0.0

    def content_timeout_s(self) -> float:
        """Seconds to wait for more content. Raises TimeoutError, also when what came so far was too slow.

        That is asked before a wait and not after one: content that came late and whole is taken. Losses on the way can
        keep an honest peer silent for a minute.
        """
        self._since = self._clock.monotonic()
        counted_s = self._content_waited_s - RATE_GRACE_S
        if counted_s > 0 and self._content_octets < counted_s * self._limits.content_rate_octets:
            self.farewell = TOO_SLOW
            raise TimeoutError
        return self._left(self._since, self._since + self._limits.content_timeout_s)

    def content_came(self, octets: int) -> None:
        """So many octets came since `content_timeout_s` was asked."""
        self._content_octets += octets
        self._content_waited_s += self._clock.monotonic() - self._since

    def _left(self, now: float, until: float) -> float:
        if until > self._ends_at:
            until, self.farewell = self._ends_at, TOO_LONG
        if now >= until:
            raise TimeoutError
        return until - now
