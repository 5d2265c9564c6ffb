"""Mail in: what ends a line, a message, a transaction; nothing of one session in another, nothing before the commit."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

SMTP = (
    Mutant(
        name="250-before-accept",
        file="reception/session.py",
        old="            await self.door.storage.accept(acceptance)",
        new="            self._later = asyncio.ensure_future(self.door.storage.accept(acceptance))",
        tests=("reception/test_session.py::test_the_250_comes_after_accept",),
    ),
    Mutant(
        name="lf-dot-lf-ends-content",
        file="protocol/lines.py",
        old=("        data = self._held + octets\n        end = data.find(_TERMINATOR)"),
        new=(
            '        data = (self._held + octets).replace(b"\\r\\n", b"\\n").replace(b"\\n", b"\\r\\n")\n'
            "        end = data.find(_TERMINATOR)"
        ),
        tests=("protocol/test_smtp_server.py::test_only_crlf_dot_crlf_ends_content[b'\\\\n.\\\\n'-0]",),
    ),
    Mutant(
        name="bare-lf-taken-in",
        file="protocol/lines.py",
        old=("            self.bare_line_end = True\n        if data.find"),
        new=("            pass\n        if data.find"),
        tests=("protocol/test_smtp_server.py::test_only_crlf_dot_crlf_ends_content[b'\\\\n.\\\\n'-0]",),
    ),
    Mutant(
        name="bare-lf-in-a-command",
        file="protocol/lines.py",
        old=("        if _CR in line or _LF in line:\n            return BadLine(LineFault.BARE_LINE_END)\n"),
        new="",
        tests=("protocol/test_smtp_dialogue.py::test_patterns_match_to_the_end_and_in_linear_time",),
    ),
    Mutant(
        name="dot-stuffing-lost-at-a-boundary",
        file="protocol/lines.py",
        old=(
            '        if octets[:1] == b"." and self._last == b"\\r\\n":\n'
            '            stuffed = b"." + stuffed\n'
            "        elif octets"
        ),
        new="        if octets",
        tests=(
            "protocol/test_smtp_client_content.py::test_content_leaves_whole_or_not_at_all",
            "protocol/test_pop3_server.py::test_content_without_a_last_line_end_gets_one_and_dots_are_stuffed",
        ),
    ),
    Mutant(
        name="long-line-is-two-commands",
        file="protocol/lines.py",
        old="        if self._discarding or end + 2 > limit_octets:",
        new="        if end + 2 > limit_octets:",
        tests=("protocol/test_smtp_server.py::test_the_rest_of_a_long_line_is_no_command[13001]",),
    ),
    Mutant(
        name="login-outlives-starttls",
        file="protocol/smtp_server.py",
        old=("        self._options = options\n        self._forget(_GREETED)"),
        new=("        self._options = options\n        self._state = _GREETED"),
        tests=("protocol/test_smtp_login.py::test_starttls_clears_a_login",),
    ),
    Mutant(
        name="refused-data-keeps-the-envelope",
        file="protocol/smtp_server.py",
        old=(
            '                    raise LocalProtocolError("DATA is answered with 354 or refused")\n'
            "                self._drop_transaction()"
        ),
        new=(
            '                    raise LocalProtocolError("DATA is answered with 354 or refused")\n'
            "                self._state = _RECIPIENTS"
        ),
        tests=("protocol/test_smtp_server.py::test_a_refused_data_ends_the_transaction",),
    ),
    Mutant(
        name="rset-keeps-the-envelope",
        file="protocol/smtp_server.py",
        old=("            case Reset():\n                self._drop_transaction()\n"),
        new="            case Reset():\n",
        tests=("protocol/test_smtp_dialogue.py::test_rset_noop_and_arguments",),
    ),
    Mutant(
        name="ehlo-keeps-the-envelope",
        file="protocol/smtp_server.py",
        old=("        self._drop_transaction()\n        self._state = _READY\n        self.hello_name"),
        new=("        self._state = _READY\n        self.hello_name"),
        tests=("protocol/test_smtp_dialogue.py::test_a_second_ehlo_is_a_reset_and_a_bad_one_is_nothing",),
    ),
    Mutant(
        name="bdat-one-octet-short",
        file="protocol/smtp_server.py",
        old="self._chunk = OpenChunk(chunk.size_octets, chunk.last, chunk.size_octets, refusal)",
        new="self._chunk = OpenChunk(chunk.size_octets, chunk.last, max(0, chunk.size_octets - 1), refusal)",
        tests=("protocol/test_smtp_chunks.py::test_nothing_in_a_chunk_ends_it[LF.LF]",),
    ),
    Mutant(
        name="refused-bdat-read-as-commands",
        file="protocol/smtp_server.py",
        old=("        if refusal is not None:\n            # Content with a hole"),
        new=(
            "        if refusal is not None:\n            self._chunk.remaining = 0\n            # Content with a hole"
        ),
        tests=(
            "protocol/test_smtp_chunks.py::test_too_large[sizes0]",
            "protocol/test_smtp_chunks.py::test_after_a_chunk_only_chunks_and_rset",
        ),
    ),
    Mutant(
        name="content-with-a-hole",
        file="protocol/smtp_server.py",
        old=("            self._drop_transaction()\n            self._after_refused_chunk = self._state\n        elif"),
        new=("            self._after_refused_chunk = self._state\n        elif"),
        tests=("protocol/test_smtp_chunks.py::test_content_with_a_hole_is_never_accepted",),
    ),
    Mutant(
        name="bare-lf-sent-out",
        file="protocol/smtp_client_content.py",
        old='            raise ContentUnfit("a CR or LF stands alone in the content")',
        new="            return octets",
        tests=("protocol/test_smtp_client_content.py::test_no_smuggling_sequence_leaves[\\n.\\n-DottedContent]",),
    ),
    Mutant(
        name="chunk-cut-between-cr-and-lf",
        file="protocol/smtp_client_content.py",
        old="size = CHUNK_OCTETS - (self._held[CHUNK_OCTETS - 1] == 0x0D)",
        new="size = CHUNK_OCTETS",
        tests=("protocol/test_smtp_client_content.py::test_no_chunk_ends_between_cr_and_lf[131072]",),
    ),
    Mutant(
        name="slow-reader-buffered-without-end",
        file="net/stream.py",
        old=("        if self._reading_paused or self._upgrading or self.is_lost:\n            return\n"),
        new="        return\n",
        tests=("net/test_stream.py::test_a_peer_that_never_stops_is_not_buffered_without_end[uvloop]",),
    ),
    Mutant(
        name="starttls-leftovers-kept",
        file="protocol/smtp_server.py",
        old=(
            "            case StartTls() if len(self._input):\n"
            "                return self._reject_and_end(name, order.TALKED_PAST_STARTTLS)\n"
        ),
        new="",
        also=(
            (
                (
                    "        elif isinstance(command, StartTls) and answer.code == 220 and len(self._input):\n"
                    '            self._notices.appendleft(self._reject_and_end("STARTTLS", '
                    "order.TALKED_PAST_STARTTLS))\n"
                ),
                "",
            ),
        ),
        tests=(
            "protocol/test_smtp_server.py::test_nothing_may_follow_starttls[x]",
            "protocol/test_smtp_server.py::test_nothing_may_come_before_the_handshake_is_agreed",
        ),
    ),
)
