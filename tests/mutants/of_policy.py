"""Who may send to whom and as whom, how much, and how often a password may be guessed."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

POLICY = (
    Mutant(
        name="bcc-left-in",
        file="admission/submission.py",
        old='_DROPPED = frozenset({b"bcc", b"resent-bcc"})',
        new='_DROPPED = frozenset({b"resent-bcc"})',
        tests=("admission/test_submission.py::test_bcc_goes_wherever_it_stands[Bcc:\\r\\n-0]",),
    ),
    Mutant(
        name="open-relay",
        file="admission/admission.py",
        old="not routed.is_alias and not peer.may_relay and not is_returned",
        new="not routed.is_alias and not peer",
        tests=("admission/test_rewriting.py::test_the_way_back_is_no_open_relay",),
    ),
    Mutant(
        name="unknown-user-bounced",
        file="admission/admission.py",
        old="        return replies.ALIAS_BROKEN if routed.is_alias else replies.NO_SUCH_MAILBOX\n",
        new="        return None\n",
        tests=("reception/test_limits.py::test_addresses_cannot_be_tried_out",),
    ),
    Mutant(
        name="anothers-identity",
        file="admission/admission.py",
        old="            return replies.NOT_YOUR_IDENTITY\n",
        new="            pass\n",
        tests=(
            "house/test_submission.py::test_and_as_nobody_else[ada@far.test]",
            "house/test_submission.py::test_domains_must_be_full_names",
        ),
    ),
    Mutant(
        name="quota-counts-one-message-late",
        file="admission/quota.py",
        old="await maildrops.used_octets(mailbox.account) + wanted_octets > quota_octets",
        new="await maildrops.used_octets(mailbox.account) > quota_octets",
        tests=("admission/test_quota.py::test_room[1000-1000-0-452 4.2.2]",),
    ),
    Mutant(
        name="quota-forgotten-at-the-end",
        file="admission/admission.py",
        old=(
            "            found = await over_quota(self._seams.maildrops, recipient.routed, "
            "content.size_octets)\n"
            "            if found is None:"
        ),
        new=("            found = None\n            if found is None:"),
        tests=("reception/test_limits.py::test_quota_is_told_at_rcpt",),
    ),
    Mutant(
        name="limiter-counts-each-ipv6-address",
        file="identity/limiter.py",
        old="else (64, 48)",
        new="else (128, 48)",
        tests=("identity/test_limiter.py::test_neighbourhoods[fe80::1%eth0-expected3]",),
    ),
    Mutant(
        name="circle-goes-on",
        file="admission/loops.py",
        old="return any(_name(value) == _key(alias) for value in delivered_to)",
        new="return False",
        tests=("admission/test_loops.py::test_mail_is_refused_that_only_goes_in_circles[recipients0--True]",),
    ),
    Mutant(
        name="hops-not-counted",
        file="admission/admission.py",
        old=(
            "        if content.facts.received_fields >= MAX_RECEIVED_FIELDS:\n"
            "            return replies.TOO_MANY_HOPS\n"
        ),
        new="",
        tests=("house/test_loops.py::test_a_way_without_end_ends_at_a_hundred_hops",),
    ),
)
