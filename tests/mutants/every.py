"""Every mutant, in the order of a message's way."""

from __future__ import annotations

from tests.mutants.of_forwarding import FORWARDING
from tests.mutants.of_policy import POLICY
from tests.mutants.of_pop3 import POP3
from tests.mutants.of_smtp import SMTP
from tests.mutants.of_storage import STORAGE

EVERY = (*SMTP, *POLICY, *STORAGE, *FORWARDING, *POP3)
