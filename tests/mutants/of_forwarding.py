"""Mail on: who has it is not sent it again, who has it not is tried again or told, and nobody hears of a report."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

FORWARDING = (
    Mutant(
        name="report-has-a-sender",
        file="admission/admission.py",
        old=("            accepted_at=now,\n            reverse_path=None,"),
        new=('            accepted_at=now,\n            reverse_path=Address("postmaster", self.rules.hostname),'),
        tests=("admission/test_reports.py::test_a_report_goes_to_a_sender_here_or_elsewhere_from_the_null_path",),
    ),
    Mutant(
        name="null-sender-answered",
        file="forwarding/bounce.py",
        old=("rows[0].row.message, rows[0].row.reverse_path\n            if"),
        new=('rows[0].row.message, rows[0].row.reverse_path or Address("postmaster", "here.test")\n            if'),
        tests=(
            "forwarding/test_bounce.py::test_nothing_is_returned_to_the_null_path[answer0]",
            "forwarding/test_runner.py::test_nothing_is_returned_to_the_null_path",
        ),
    ),
    Mutant(
        name="partial-success-repeated",
        file="forwarding/transaction.py",
        old=("    answer = ended.recipients[index]\n    if answer is None"),
        new=(
            "    answer = next((each for each in ended.recipients if each is None or not "
            "each.is_positive), ended.recipients[index])\n"
            "    if answer is None"
        ),
        tests=(
            "forwarding/test_session.py::test_each_recipient_has_its_own_outcome",
            "forwarding/test_whole.py::test_a_partial_success_is_not_repeated_also_after_a_restart",
        ),
        failures=frozenset({"AssertionError", "ValueError"}),
    ),
    Mutant(
        name="uncertain-via-repeated",
        file="forwarding/verdict.py",
        old="case Uncertain() if row.destination.via:",
        new="case Uncertain() if row.held:",
        tests=(
            "forwarding/test_verdict.py::test_what_may_have_arrived_by_an_identitys_own_server_is_held[1700000010.0]",
        ),
    ),
    Mutant(
        name="dot-before-the-mark",
        file="forwarding/session.py",
        old=("        mark = self._mark\n        if mark is None:"),
        new=("        mark = None\n        if mark is None:"),
        tests=("forwarding/test_session.py::test_without_its_mark_no_dot_leaves",),
    ),
    Mutant(
        name="mark-not-waited-for",
        file="forwarding/session.py",
        old="if not await mark([row for index, row in enumerate(rows) if index not in refused]):",
        new=("if not await mark([row for index, row in enumerate(rows) if index not in refused]) and not rows:"),
        tests=("forwarding/test_session.py::test_without_its_mark_no_dot_leaves",),
    ),
    Mutant(
        name="transient-returned",
        file="forwarding/transaction.py",
        old="return Failed(answer, from_peer) if answer.is_permanent else",
        new="return Failed(answer, from_peer) if not answer.is_positive else",
        tests=("forwarding/test_relay.py::test_each_phase_decides_for_each_recipient[-451 later-outcomes0-True]",),
    ),
    Mutant(
        name="expires-without-a-last-try",
        file="forwarding/schedule.py",
        old="        return min(now + jittered_s, expires_at)",
        new="        return now + jittered_s if now + jittered_s < expires_at else None",
        tests=("forwarding/test_schedule.py::test_the_last_attempt_is_at_expiry",),
    ),
    Mutant(
        name="failure-without-its-report",
        file="forwarding/verdict.py",
        old=("        case Action.FAILED:\n            last ="),
        new=("        case Action.FAILED if verdict.row.held:\n            last ="),
        tests=("forwarding/test_verdict.py::test_without_its_report_a_failure_waits_and_is_not_forgotten",),
    ),
    Mutant(
        name="reports-without-a-pace",
        file="forwarding/pace.py",
        old="            turns.spent_until = max(turns.spent_until, now) + self._interval_s\n",
        new="",
        tests=("forwarding/test_pace.py::test_so_many_at_once_then_in_a_line",),
    ),
    Mutant(
        name="dead-destination-takes-all-places",
        file="forwarding/runner.py",
        old=(
            "        return sum(self._running[each] for each in unproven if "
            "self._places.has_failed(each)) < self._limits.failing"
        ),
        new="        return True",
        tests=("forwarding/test_runner_turns.py::test_destinations_that_failed_leave_half_of_the_places_to_others",),
    ),
    Mutant(
        name="required-tls-goes-in-clear",
        file="forwarding/dial.py",
        old=(
            "            case TlsMode.REQUIRED:\n"
            "                opened = await self._greeted(target, transcript)\n"
            "                await self._step(opened, transcript, _start_tls(opened.connection, "
            "target, self.tls.verified))"
        ),
        new=(
            "            case TlsMode.REQUIRED:\n"
            "                opened = await self._encrypted_or_not(target, transcript)"
        ),
        tests=("forwarding/test_dial.py::test_where_tls_is_required_nothing_goes_in_clear[354]",),
    ),
    Mutant(
        name="any-certificate-will-do",
        file="forwarding/dial.py",
        old="transcript, _start_tls(opened.connection, target, self.tls.verified))",
        new="transcript, _start_tls(opened.connection, target, self.tls.any_certificate))",
        tests=("forwarding/test_dial.py::test_a_bad_certificate_is_taken_only_where_any_is[unknown]",),
    ),
    Mutant(
        name="sender-not-rewritten",
        file="admission/rewriting.py",
        old="        return self._srs.rewrite(sender, domain, queue_id, now)",
        new="        return sender",
        tests=(
            "admission/test_rewriting.py::test_a_sender_from_elsewhere_is_rewritten_in_the_domain_of_the_alias[away@here.test-carol@far.test]",
        ),
    ),
    Mutant(
        name="forged-rewritten-sender-opens",
        file="mail/srs.py",
        old="        return hmac.compare_digest(mark.upper(), self._hash(*parts))",
        new="        return bool(mark)",
        tests=("mail/test_srs.py::test_another_key_opens_nothing",),
    ),
    Mutant(
        name="our-error-is-a-bounce",
        file="forwarding/runner.py",
        old="outcomes=(Deferred(OUR_SIDE, from_peer=False),) * len(rows),",
        new="outcomes=(Failed(OUR_SIDE, from_peer=False),) * len(rows),",
        also=(("import Deferred, Delivered", "import Deferred, Delivered, Failed"),),
        tests=("forwarding/test_runner.py::test_an_error_inside_defers_one_message_and_never_bounces",),
        failures=frozenset({"ValueError"}),
    ),
    Mutant(
        name="uncertain-taken-for-delivered",
        file="forwarding/session.py",
        old="            unknown = Uncertain(OWNER_DECIDES if self._mark else MAY_HAVE_ARRIVED)",
        new='            unknown = Delivered(reply(250, "2.0.0", "Sent"))',
        also=(("import Deferred, Failed, Outcome, Uncertain", "import Deferred, Delivered, Failed, Outcome"),),
        tests=("forwarding/test_whole.py::test_a_message_without_a_final_reply_stays_and_says_so",),
    ),
    Mutant(
        name="report-about-a-report",
        file="admission/admission.py",
        old="self._places(None, [recipient], queue_id, now)",
        new="self._places(forward_path, [recipient], queue_id, now)",
        also=(("routed=routed, notify=frozenset({Notify.NEVER}))", "routed=routed)"),),
        tests=("forwarding/test_runner.py::test_a_report_goes_to_a_sender_elsewhere_and_never_causes_another",),
    ),
    Mutant(
        name="report-returns-all",
        file="mail/report_request.py",
        old="RETURN_LIMIT_OCTETS = 64 * 1024",
        new="RETURN_LIMIT_OCTETS = 64 * 1024 * 1024",
        tests=("forwarding/test_bounce.py::test_a_report_returns_64_kib_at_most[70000-False]",),
    ),
)
