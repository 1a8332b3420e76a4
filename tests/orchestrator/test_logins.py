"""What opens another system stays out of documents."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import chain as chains
from orchestrator import documents, logins
from orchestrator.documents import Claimant, Report
from orchestrator.errors import ChainError

SECRET = "hunter2"
SAID = [
    f"curl: (22) http://joe:{SECRET}@couch:5984/runs gave 500", f"DB_PASSWORD={SECRET} was refused",
    f'{{"password": "{SECRET}", "user": "joe"}}', f"passwd: {SECRET}", f"ftp://:{SECRET}@host", f"secret = '{SECRET}'",
]  # fmt: skip


@pytest.mark.parametrize("text", SAID)
@pytest.mark.parametrize("error", ["code", "gate"])
def test_an_attempt_s_documents_hold_no_login_that_a_step_has_printed(text: str, error: str) -> None:
    chain = chains.loads("name: c\nsteps: [{name: a, run: 'x:y'}]")
    raw = {"_id": "d", "type": chain.type, "status": "closed"}
    held = documents.claim(raw, chain.steps[0], Claimant("p", "daq1", 1, "here"), "t", 1000.0)
    report = Report("d", "proc0", "t", 1.0, 2.0, error_class=error, reason=text, log_tail=f"one\n{text}\ntwo")
    report.command = ["curl", "--password", SECRET, f"http://joe:{SECRET}@couch/x", f"--secret={SECRET}", "file"]
    if error == "gate":
        report.gate = "look"
    changed, record = documents.fail(held, chain.steps[0], report, 1001.0)
    assert SECRET not in repr(changed) and SECRET not in repr(record)
    assert record["command"][0] == "curl" and record["command"][-1] == "file"
    assert record["log_tail"].startswith("one\n") and record["log_tail"].endswith("\ntwo")
    done = documents.finish(held, chain.steps[0], Report("d", "proc0", "t", 1.0, 2.0, command=report.command), 1001.0)
    assert SECRET not in repr(done)


@pytest.mark.parametrize(
    "text",
    ["no space left on /data", "https://host:443/path", "time 12:30:11", "the password file is missing", "a@b.c", ""],
)
def test_what_is_no_login_stays_as_it_is(text: str) -> None:
    assert logins.without(text) == text
    assert logins.without_in([text, 3, None]) == [text, 3, None] and logins.without_in(None) is None


@given(st.text(), st.lists(st.text() | st.integers()))
def test_twice_is_once(text: str, command: list[Any]) -> None:
    assert logins.without(logins.without(text)) == logins.without(text)
    assert logins.without_in(logins.without_in(command)) == logins.without_in(command)


@pytest.mark.parametrize(
    "settings", ["{password: hunter2}", "{db: {user: joe, db_password: hunter2}}", "{from: ['ftp://joe:hunter2@host/x']}"]
)
def test_a_chain_keeps_no_login_for_its_steps(settings: str) -> None:
    with pytest.raises(ChainError, match="name a file that holds it") as raised:
        chains.loads(f"name: c\nsteps: [{{name: a, run: 'x:y', settings: {settings}}}]")
    assert SECRET not in str(raised.value)
    assert chains.loads("name: c\nsteps: [{name: a, run: 'x:y', settings: {password_from: 'file:/x'}}]")
