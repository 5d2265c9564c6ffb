"""Mail out to its readers: deletion, numbers, unique ids, the end of a message."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

POP3 = (
    Mutant(
        name="stls-leftovers-kept",
        file="protocol/pop3_server.py",
        old="        if len(self._lines):",
        new="        if False:",
        tests=("protocol/test_pop3_login.py::test_whatever_stands_behind_stls_closes_the_session[x]",),
    ),
    Mutant(
        name="expunge-before-quit",
        file="protocol/pop3_server.py",
        old=("            if not self._ended:\n                return NEED_DATA\n            self._end()"),
        new=(
            "            if not self._ended:\n"
            "                return NEED_DATA\n"
            "            if self.state is State.TRANSACTION:\n"
            "                return self._hold(self._quit(None))\n"
            "            self._end()"
        ),
        tests=("protocol/test_pop3_server.py::test_a_dropped_connection_updates_nothing[]",),
    ),
    Mutant(
        name="uidl-from-the-position",
        file="protocol/pop3_maildrop.py",
        old="        return self._listing.uidls[number - 1]",
        new="        return str(number)",
        tests=(
            "protocol/test_pop3_server.py::test_marks_are_left_out_and_numbers_do_not_shift",
            "retrieval/test_session.py::test_numbers_stand_while_mail_arrives",
        ),
    ),
    Mutant(
        name="numbers-shift",
        file="protocol/pop3_maildrop.py",
        old="return (n for n in range(1, len(self._listing) + 1) if n not in self._marked)",
        new="return iter(range(1, len(self) + 1))",
        tests=("protocol/test_pop3_server.py::test_marks_are_left_out_and_numbers_do_not_shift",),
    ),
    Mutant(
        name="rset-keeps-marks",
        file="protocol/pop3_maildrop.py",
        old="        self._marked.clear()\n",
        new="",
        tests=("protocol/test_pop3_server.py::test_rset_takes_all_marks_back",),
    ),
    Mutant(
        name="half-a-message-looks-whole",
        file="retrieval/session.py",
        old=("                self.stream.abort()\n                raise\n            self.pop3"),
        new=("                self.pop3.end_message()\n                return\n            self.pop3"),
        tests=("retrieval/test_session.py::test_half_a_message_never_looks_whole",),
    ),
    Mutant(
        name="ok-before-the-deletion",
        file="retrieval/session.py",
        old=(
            "                if not await self.door.storage.maildrops.expunge(self._lock, uids, "
            "self._events(numbers)):\n"
            "                    self.pop3.refuse(SYS_TEMP, \"The maildrop's lock was lost; "
            'nothing was deleted")\n'
            "                    return\n"
        ),
        new=(
            "                self._later = asyncio.ensure_future(\n"
            "                    self.door.storage.maildrops.expunge(self._lock, uids, "
            "self._events(numbers))\n"
            "                )\n"
        ),
        tests=("retrieval/test_session.py::test_no_answer_to_quit_before_the_deletion",),
    ),
)
