"""What to do about each kind of error, as data: the guide to recovery has a table of it, and a test fails for an error
without a line here.

Each message says what happened to which document or file, and mostly what to do; here stands what holds for all of a
kind. ``test`` names the test that does it: the error is met, the remedy is applied, and then it works.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Remedy:
    """``meaning`` for people, ``action`` what to do about it, ``test`` where that is tried."""

    meaning: str
    action: str
    test: str


_RECOVERY = "tests/orchestrator/cli/test_recovery.py::"
_OPERATIONS = "tests/orchestrator/cli/test_operations.py::"
_SSH = "tests/orchestrator/transports/test_ssh.py::"

#: By the error's class.
REMEDIES: dict[str, Remedy] = {
    "OrchestratorError": Remedy(
        "something else was tried and did not work", "what the sentence says; nothing is half-done, so try again",
        _RECOVERY + "test_what_was_killed_in_the_middle_is_simply_begun_again",
    ),
    "SettingsError": Remedy(
        "a setting, a credentials file or a command's words cannot be used",
        "correct the place that the sentence names; `orchestrator settings` shows every value and where it comes from",
        _RECOVERY + "test_settings_and_credentials_that_cannot_be_used",
    ),
    "ChainError": Remedy(
        "the chain file cannot be used", "correct the line that is named, then `orchestrator chain check`",
        _RECOVERY + "test_a_chain_that_cannot_be_used",
    ),
    "TooMany": Remedy(
        "more documents fit than a form of the page may change", "give the command on the command line",
        "tests/orchestrator/web/test_web_operations.py::"
        "test_many_documents_want_a_confirm_and_what_cannot_be_is_refused_in_words",
    ),
    "BadQuery": Remedy(
        "an address of the page asks for something that cannot be", "begin from a link of the page",
        "tests/orchestrator/web/test_web_paging.py::test_a_cursor_that_nobody_made_is_refused",
    ),
    "BadSet": Remedy(
        "a set of plots cannot be saved as it is", "change what the sentence names, and save it again",
        "tests/orchestrator/web/online/test_online_pages.py::"
        "test_a_set_that_another_page_sends_or_that_is_none_is_refused",
    ),
    "DatabaseError": Remedy(
        "the database answered with an error of its own",
        "what its words say; `orchestrator check` looks at what it needs",
        "tests/orchestrator/couch/test_client.py::test_each_status_is_an_error_of_its_own",
    ),
    "Unavailable": Remedy(
        "the database does not answer",
        "start it: `orchestrator up` for the embedded one, a CouchDB as its own manual says; daemons wait and go on",
        _RECOVERY + "test_a_database_that_does_not_answer",
    ),
    "NotFound": Remedy(
        "there is no such document, database or view",
        "look at the name; a database or view that is missing is made by `orchestrator couchapp push`",
        _RECOVERY + "test_what_is_not_there",
    ),
    "Conflict": Remedy(
        "somebody else changed it first, or has it",
        "give the command again; where a daemon or a port is named, stop that one or take another",
        _RECOVERY + "test_what_somebody_else_has",
    ),
    "Unauthorised": Remedy(
        "the login or a role is refused", "correct the credentials file or the account's roles (`orchestrator user`); "
        "then `orchestrator down` and `up`, for five wrong passwords lock an account for minutes",
        _RECOVERY + "test_a_login_that_is_refused",
    ),
    "Refused": Remedy(
        "the database's guard does not allow this write",
        "log in as somebody with the role that the sentence names; `orchestrator user list` shows who has it",
        "tests/orchestrator/cli/test_operator.py::test_others_may_not_and_nothing_changes",
    ),
    "IllegalTransition": Remedy(
        "the document is in a state in which this cannot be done",
        "`orchestrator explain DOCUMENT` says where it stands and what can be done",
        _RECOVERY + "test_what_a_documents_state_does_not_allow",
    ),
    "FormatError": Remedy(
        "a raw file is not what it says it is, from the byte that is named on",
        "bring a good copy under the same name, then `orchestrator mark-good DOCUMENT`",
        _RECOVERY + "test_a_corrupt_file_that_a_good_one_replaces",
    ),
    "StepError": Remedy(
        "a step could not do its work; its class decides what follows",
        "mend what the reason names, then `orchestrator retry DOCUMENT`",
        _RECOVERY + "test_a_step_that_failed_and_was_mended",
    ),
    "TransientError": Remedy(
        "a passing fault, as a full disk", "nothing: it is tried again, as often as the chain's `retries` say",
        "tests/system/test_disk_full.py::test_a_full_disk_is_waited_out",
    ),
    "DataError": Remedy(
        "the input is at fault", "correct the file, then `orchestrator retry DOCUMENT`, or mark it bad",
        _RECOVERY + "test_a_step_that_failed_and_was_mended",
    ),
    "ResourceError": Remedy(
        "too little time or memory", "larger limits in the chain; at a farm `degrade` asks for more by itself",
        "tests/orchestrator/engine/test_farm_engine.py::test_out_of_time_asks_for_more_the_next_time",
    ),
    "GateRefused": Remedy(
        "a gate refuses a step's output",
        "look at the output; `orchestrator mark-good DOCUMENT` has it made again, `accept` takes it as it is",
        _OPERATIONS + "test_an_output_that_a_gate_refuses_is_accepted_as_it_is",
    ),
    "OutputFault": Remedy(
        "an old output could not be moved or removed", "mend what is named, then `orchestrator operations ID --finish`",
        _OPERATIONS + "test_an_operation_that_is_cut_short_anywhere_is_visible_and_can_be_ended",
    ),
    "SchedulerError": Remedy(
        "the batch system said something that cannot be used", "`orchestrator site check FARM` tries each of its words",
        "tests/orchestrator/test_site_check.py::test_a_batch_system_that_is_not_there_or_does_not_answer",
    ),
    "SchedulerUnavailable": Remedy(
        "the batch system cannot be asked", "nothing, while it is away: jobs go on, and no state changes for that",
        "tests/orchestrator/schedulers/test_real_outages.py::test_fsched_down_and_with_a_node_gone",
    ),
    "SubmissionRejected": Remedy(
        "the batch system will not take a job",
        "correct the farm's `options`, queue or limits in the chain; what may pass is tried again by itself",
        "tests/orchestrator/schedulers/test_recorded.py::test_submissions",
    ),
    "HistoryUnavailable": Remedy(
        "the batch system keeps no accounting", "nothing: its queue and the jobs' own files decide, after a while",
        "tests/orchestrator/schedulers/test_real_outages.py::test_slurm_whose_accounting_is_down",
    ),
    "UnfitJob": Remedy(
        "a job cannot be described to this batch system", "change the word of the chain that the sentence names",
        "tests/orchestrator/schedulers/test_job_scripts.py::test_what_cannot_be_a_job_is_refused_with_a_sentence",
    ),
    "TransportError": Remedy(
        "something at the far end did not work", "`orchestrator site check FARM` says what",
        "tests/orchestrator/test_site_check.py::test_what_the_network_and_the_login_can_do",
    ),
    "TransportUnavailable": Remedy(
        "the machine cannot be reached", "nothing, while it is away: it is asked again after growing waits",
        _SSH + "test_a_cut_connection_is_made_again",
    ),
    "TransportRefused": Remedy(
        "the machine was reached and will not do it", "a person must change what the sentence names, then start again",
        _SSH + "test_no_permission_is_told",
    ),
    "HostKeyRefused": Remedy(
        "the machine's host key is not the known one: nothing was sent to it",
        "ask its administrators for the key's fingerprint, and only then put it into `known_hosts`",
        _SSH + "test_a_changed_key_is_refused",
    ),
    "LoginRefused": Remedy(
        "the login at the farm is not accepted", "correct the key or the account in the chain's `access`",
        _SSH + "test_a_wrong_key_is_refused_and_not_tried_again_at_once",
    ),
    "NoShell": Remedy(
        "the account at the farm runs no commands", "files still travel; for jobs it needs an account with a shell",
        _SSH + "test_without_a_shell_files_still_work",
    ),
    "FileRefused": Remedy(
        "a file operation was refused at the far end", "make room, or give the account the permission that is named",
        "tests/orchestrator/transports/test_contract.py::test_refusals_have_a_reason",
    ),
    "FarError": Remedy(
        "the farm's Python did not do what was asked", "`orchestrator site check FARM`, then `site install FARM` again",
        "tests/orchestrator/test_site_check.py::test_a_damaged_version",
    ),
    "Setup": Remedy(
        "the database answers, and what the pages read is not there yet", "`orchestrator couchapp push`",
        _RECOVERY + "test_what_is_not_there",
    ),
    "Full": Remedy(
        "there are as many viewers as there may be", "close a page that nobody looks at; it reloads by itself",
        "tests/orchestrator/web/test_web_live.py::test_too_many_viewers_are_refused",
    ),
    "PortTaken": Remedy(
        "another program listens there already", "stop it, or set another `web_port`, or for the database `url`",
        _RECOVERY + "test_what_somebody_else_has",
    ),
}  # fmt: skip
