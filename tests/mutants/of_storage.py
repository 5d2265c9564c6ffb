"""What is stored stays, whole and once: commits, content files, claims, sweeping, restoring."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

STORAGE = (
    Mutant(
        name="synchronous-normal",
        file="storage/sqlite/connection.py",
        old="synchronous=FULL",
        new="synchronous=NORMAL",
        tests=("storage/crash/test_crash_points.py::test_nothing_is_answered_before_it_is_durable[a_long_day]",),
    ),
    Mutant(
        name="answer-before-commit",
        file="storage/sqlite/writer.py",
        old="                self._batches.run(gathered[-1])\n",
        new=(
            "                self._batches.run(item := gathered[-1])\n"
            "                if item.future is not None and not item.future.done():\n"
            "                    item.future.set_result(item.value)\n"
        ),
        tests=("storage/sqlite/test_faults.py::test_a_failed_sync_is_answered_and_nothing_comes_back[thread]",),
    ),
    Mutant(
        name="content-folder-unsynced",
        file="storage/sqlite/content.py",
        old="        self._store.file_system.sync_folder((self._store.folder / self.file).parent)\n",
        new="",
        tests=("storage/crash/test_crash_points.py::test_nothing_is_answered_before_it_is_durable[a_long_day]",),
    ),
    Mutant(
        name="new-folder-unsynced",
        file="storage/sqlite/content.py",
        old="            self._store.file_system.sync_folder(self._store.folder)\n",
        new="",
        tests=("storage/crash/test_crash_points.py::test_nothing_is_answered_before_it_is_durable[a_long_day]",),
    ),
    Mutant(
        name="content-file-unsynced",
        file="storage/sqlite/content.py",
        old="        self._store.file_system.sync(self._descriptor)\n",
        new="",
        tests=("storage/crash/test_crash_points.py::test_nothing_is_answered_before_it_is_durable[a_long_day]",),
    ),
    Mutant(
        name="fsync-error-ignored",
        file="storage/sqlite/content.py",
        old="        self._store.file_system.sync(self._descriptor)\n",
        new=(
            "        try:\n"
            "            self._store.file_system.sync(self._descriptor)\n"
            "        except OSError:\n"
            "            pass\n"
        ),
        tests=("storage/crash/test_faults.py::test_each_operation_fails_once[accept_file-Trouble.BROKEN]",),
    ),
    Mutant(
        name="commit-error-ignored",
        file="storage/sqlite/writer.py",
        old=("            self._unwrite(exc)\n            self._refuse(items, exc)\n"),
        new="            self._unwrite(exc)\n",
        tests=("storage/sqlite/test_faults.py::test_a_failed_sync_is_answered_and_nothing_comes_back[inline]",),
    ),
    Mutant(
        name="refused-row-comes-back",
        file="storage/sqlite/writer.py",
        old=("            self._unwrite(exc)\n            self._refuse(items, exc)\n"),
        new="            self._refuse(items, exc)\n",
        tests=("storage/sqlite/test_faults.py::test_a_failed_sync_is_answered_and_nothing_comes_back[inline]",),
    ),
    Mutant(
        name="answered-though-the-log-holds-it",
        file="storage/sqlite/writer.py",
        old="            raise Stopped from second\n",
        new="",
        tests=("storage/sqlite/test_faults.py::test_a_log_that_cannot_be_cut_off_ends_the_process[inline]",),
        failures=frozenset({"StorageBusy"}),
    ),
    Mutant(
        name="batch-fails-as-a-whole",
        file="storage/sqlite/writer.py",
        old=(
            "        except _Void:\n"
            "            for item in items:\n"
            "                item.value, item.error = None, None\n"
            "            for number"
        ),
        new=(
            "        except _Void:\n"
            '            self._refuse(items, StorageBusy("one of the batch was refused"))\n'
            "            return\n"
            "            for number"
        ),
        tests=("storage/sqlite/test_faults.py::test_one_bad_item_leaves_the_others_of_its_batch[inline]",),
    ),
    Mutant(
        name="expunge-without-lock",
        file="storage/sqlite/maildrops.py",
        old=("            if not self._locks.holds(lock):\n                return False\n"),
        new="",
        tests=("storage/contract/test_maildrops.py::test_expunge_without_the_lock_changes_nothing[sqlite-inline]",),
    ),
    Mutant(
        name="settle-without-claim",
        file="storage/sqlite/settle.py",
        old=("is None:\n            return None\n"),
        new=("is None:\n            break\n"),
        tests=(
            "storage/contract/test_spool.py::test_a_lost_claim_changes_nothing[sqlite-inline]",
            "storage/contract/test_spool.py::test_one_foreign_row_makes_the_whole_settlement_lost[sqlite-inline]",
        ),
    ),
    Mutant(
        name="settled-by-the-dead",
        file="storage/sqlite/settle.py",
        old="claim_token = ? AND claim_incarnation = ?",
        new=("(claim_token = ?3 OR claim_token IS NULL)\n    AND coalesce(claim_incarnation, ?4) = ?4"),
        tests=("storage/contract/test_spool.py::test_a_lost_claim_changes_nothing[sqlite-inline]",),
    ),
    Mutant(
        name="incarnation-unchecked",
        file="storage/sqlite/settle.py",
        old="claim_token = ? AND claim_incarnation = ?",
        new="claim_token = ? AND ? <> ''",
        tests=("storage/contract/test_spool.py::test_another_process_frees_no_living_claim[sqlite-inline]",),
    ),
    Mutant(
        name="quota-never-freed",
        file="storage/sqlite/maildrops.py",
        old="used_octets = used_octets - ?3",
        new="used_octets = max(used_octets, ?3)",
        tests=(
            "storage/contract/test_maildrops.py::test_expunge_removes_entries_and_tells_the_journey[sqlite-inline]",
        ),
    ),
    Mutant(
        name="quota-without-prefix",
        file="storage/sqlite/accept.py",
        old="size_octets = len(placement.prefix) + len(acceptance.prefix) + acceptance.content.size_octets",
        new="size_octets = len(acceptance.prefix) + acceptance.content.size_octets",
        tests=(
            "storage/contract/test_accept.py::test_an_accepted_message_is_in_the_maildrop_octet_by_octet[sqlite-inline]",
            "retrieval/test_corpus.py::test_every_list_tells_what_is_sent",
        ),
    ),
    Mutant(
        name="two-entries-for-one-person",
        file="storage/sqlite/accept.py",
        old="            if place not in placed:",
        new="            if placement not in placed:",
        tests=("storage/contract/test_accept.py::test_two_placements_in_one_maildrop_become_one_entry[sqlite-inline]",),
        failures=frozenset({"StorageBusy"}),
    ),
    Mutant(
        name="uid-used-again",
        file="storage/sqlite/accept.py",
        old="SET next_uid = next_uid + 1, change",
        new=(
            "SET next_uid = 2 + coalesce((SELECT max(uid) FROM entries WHERE entries.folder = "
            "folders.folder), 0), change"
        ),
        tests=("storage/contract/test_maildrops.py::test_uids_only_grow[sqlite-inline]",),
    ),
    Mutant(
        name="uidl-used-again",
        file="storage/sqlite/accept.py",
        old="    if not connection.changes() or row(connection, taken",
        new="    if row(connection, taken",
        tests=("storage/contract/test_accept.py::test_an_imported_uidl_is_kept_and_never_used_again[sqlite-inline]",),
    ),
    Mutant(
        name="report-forgotten",
        file="storage/sqlite/settle.py",
        old=(
            "    for generated in settlement.generated:\n"
            "        insert_acceptance(connection, generated, drafts, taken)\n"
        ),
        new="",
        tests=(
            "storage/contract/test_spool.py::test_a_report_is_there_with_the_failure_that_caused_it[sqlite-inline]",
        ),
    ),
    Mutant(
        name="sent-mark-forgotten",
        file="storage/sqlite/claims.py",
        old="if sending_at is not None:",
        new="if False:",
        tests=(
            "storage/contract/test_sending.py::test_a_mark_whose_claim_ends_holds_the_row_and_says_so[sqlite-inline-idle]",
        ),
    ),
    Mutant(
        name="killer-is-never-put-off",
        file="storage/sqlite/claims.py",
        old="wait_s = put_off_s(deaths := deaths + died)",
        new="wait_s = put_off_s(deaths)",
        tests=(
            "storage/contract/test_sending.py::test_what_kills_its_process_is_put_off_ever_longer[sqlite-inline-2-60]",
        ),
    ),
    Mutant(
        name="dead-keep-their-claims",
        file="storage/sqlite/sweep.py",
        old=("            if not dead:\n                continue\n"),
        new="            continue\n",
        tests=("forwarding/test_runner.py::test_claims_of_a_killed_process_are_taken_over",),
    ),
    Mutant(
        name="living-lose-their-claims",
        file="storage/sqlite/sweep.py",
        old=("            if not dead:\n                continue\n"),
        new="",
        tests=("storage/contract/test_spool.py::test_another_process_frees_no_living_claim[sqlite-inline]",),
    ),
    Mutant(
        name="open-draft-swept",
        file="storage/sqlite/incarnation.py",
        old=" and file not in kept",
        new="",
        tests=("storage/sqlite/test_sweep.py::test_our_own_orphan_goes_and_our_drafts_stay",),
    ),
    Mutant(
        name="neighbours-draft-swept",
        file="storage/sqlite/incarnation.py",
        old="_maker(file) not in living or",
        new="_maker(file) != ours or",
        tests=("storage/sqlite/test_sweep.py::test_a_living_neighbours_draft_stays",),
    ),
    Mutant(
        name="swept-though-referenced",
        file="storage/sqlite/sweep.py",
        old=("        if row(connection, _REFERENCED, (queue_id,))[0]:\n            continue\n"),
        new="",
        tests=(
            "storage/contract/test_maildrops.py::test_sweep_removes_content_a_day_after_its_last_reference[sqlite-inline-100]",
        ),
        failures=frozenset({"StorageBusy"}),
    ),
    Mutant(
        name="swept-under-a-reader",
        file="storage/sqlite/sweep.py",
        old="    before = now - UNREFERENCED_KEPT_S",
        new="    before = now",
        tests=("storage/sqlite/test_sweep.py::test_what_a_reader_listed_can_be_read_for_a_day",),
        failures=frozenset({"ValueError"}),
    ),
    Mutant(
        name="swept-during-backup",
        file="storage/sqlite/sweep.py",
        old=("            if not allowed:\n                return\n"),
        new="",
        tests=("storage/sqlite/test_sweep.py::test_nothing_is_swept_while_somebody_holds_the_sweep",),
    ),
    Mutant(
        name="restore-sends-the-queue",
        file="storage/sqlite/restore.py",
        old='    connection.execute("UPDATE spool SET held = ? WHERE held = 0", (HELD_BY_RESTORE,))\n',
        new="",
        tests=("storage/sqlite/test_backup.py::test_after_a_restore_nothing_is_sent_until_it_is_released",),
    ),
    Mutant(
        name="restore-sends-what-may-be-sent",
        file="storage/sqlite/restore.py",
        old=("        while free(connection, OF_ANYBODY, (), now):\n            pass\n"),
        new="        pass\n",
        tests=(
            "storage/sqlite/test_backup.py::test_what_may_have_been_sent_when_the_backup_was_made_is_not_sent_by_a_restore",
        ),
    ),
    Mutant(
        name="restore-keeps-uid-validity",
        file="storage/sqlite/restore.py",
        old=('    connection.execute("UPDATE folders SET uid_validity = max(uid_validity + 1, ?)", (int(now),))\n'),
        new="",
        tests=("storage/sqlite/test_backup.py::test_uid_validities_are_raised",),
    ),
    Mutant(
        name="held-row-claimed",
        file="storage/sqlite/spool.py",
        old="WHERE held = 0 AND claim_token IS NULL AND via = ?",
        new="WHERE claim_token IS NULL AND via = ?",
        tests=("storage/contract/test_spool.py::test_held_rows_are_not_due_until_released[sqlite-inline]",),
    ),
    Mutant(
        name="claimed-twice",
        file="storage/sqlite/spool.py",
        old="WHERE held = 0 AND claim_token IS NULL AND via = ?",
        new="WHERE held = 0 AND via = ?",
        tests=("storage/contract/test_spool.py::test_claims_are_exclusive_and_count_the_attempt[sqlite-inline]",),
    ),
    Mutant(
        name="read-transaction-held",
        file="storage/sqlite/maildrops.py",
        old=(
            "        found = await self._readers.query(lambda connection: row(connection, _READ, "
            "(account, folder, uid)))\n"
        ),
        new=(
            "        cursor = await self._readers.query(lambda connection: "
            "connection.execute(_READ, (account, folder, uid)))\n"
            "        found = next(cursor, None)\n"
        ),
        tests=(
            "storage/sqlite/test_slow_readers.py::test_reading_keeps_no_transaction_open[inline-in its row-entry]",
            "storage/sqlite/test_slow_readers.py::test_reading_keeps_no_transaction_open[thread-in a file-entry]",
        ),
        failures=frozenset({"BusyError"}),
    ),
    Mutant(
        name="lock-shared",
        file="storage/sqlite/maildrop_locks.py",
        old="fcntl.LOCK_EX",
        new="fcntl.LOCK_SH",
        tests=("storage/sqlite/test_maildrop_locks.py::test_one_of_two_processes_has_the_lock",),
    ),
    Mutant(
        name="upgrade-without-a-snapshot",
        file="storage/sqlite/migrate.py",
        old="    write_snapshot(path, snapshot, vfs=vfs, file_system=file_system, tell=tell)\n",
        new="",
        tests=("storage/sqlite/test_migrate.py::test_an_old_database_is_brought_up_after_a_snapshot",),
        failures=frozenset({"FileNotFoundError"}),
    ),
    Mutant(
        name="backup-renamed-unsynced",
        file="storage/sqlite/backup.py",
        old="            self.disk.sync_folder(self.target.parent)\n",
        new="            pass\n",
        tests=("storage/crash/test_backup.py::test_a_power_cut_at_any_moment_of_a_backup",),
    ),
)
