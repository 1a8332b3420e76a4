"""The client against servers that misbehave: what it sends, what it sends twice, and what it says."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from orchestrator.couch import Credentials, Database, Saved, Server
from orchestrator.errors import Conflict, DatabaseError, NotFound, Refused, SettingsError, Unauthorised, Unavailable


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://root:secret@127.0.0.1:5984", "credentials file"),
        ("http://root@127.0.0.1:5984", "credentials file"),
        ("ftp://127.0.0.1", "http://127.0.0.1:5984"),
        ("127.0.0.1:5984", "http://127.0.0.1:5984"),
        ("http://", "http://127.0.0.1:5984"),
        ("http://host:port", "cannot be used"),
        ("http://host:99999", "cannot be used"),
        ("http://host/?x=1", "query"),
        ("http://a..b", "cannot be used"),
        ("http://ho st/", "cannot be used"),
        ("http://host/a\nb", "cannot be used"),
    ],
)
def test_a_url_that_cannot_be_used(url: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        Server(url)
    assert "secret" not in str(caught.value)


def test_a_url_keeps_its_path() -> None:
    assert Server(" https://host/couch/\n").url == "https://host/couch"


def test_the_login_goes_into_a_header_and_nowhere_else(scripted: Any, answers: Any) -> None:
    from base64 import b64decode

    scripted.answers = [answers.reply({"db_name": "runs"})]
    Server(scripted.url, Credentials("jürgen", "p:@/ß")).database("runs").info()
    [request] = scripted.requests
    assert b64decode(request.headers["authorization"].split()[1]).decode() == "jürgen:p:@/ß"
    assert request.target == "/runs"


def test_a_connection_is_kept_even_after_chunked_answers(scripted: Any, database: Database, answers: Any) -> None:
    scripted.answers = [answers.chunks(b'{"rows":', b"[]}")]
    for _ in range(3):
        database.all_docs()
    assert scripted.connections == 1


def test_a_silent_server_is_unavailable_after_the_time_out(scripted: Any, answers: Any) -> None:
    scripted.answers = [answers.silence]
    database = Server(scripted.url, timeout=0.2).database("runs")
    began = time.perf_counter()
    with pytest.raises(Unavailable, match=r"no answer within 0\.2 s"):
        database.info()
    with pytest.raises(Unavailable, match=r"no answer within 0\.1 s"):
        database.view("work/proc0", timeout=0.1)
    assert time.perf_counter() - began < 1.5
    assert len(scripted.requests) == 2, "what timed out is not asked again at once"


def test_a_write_is_never_sent_twice(scripted: Any, database: Database, answers: Any) -> None:
    scripted.answers = [answers.raw(b"")]
    with pytest.raises(Unavailable):
        database.bulk([{"_id": "a"}])
    assert len(scripted.requests) == 1
    with pytest.raises(Unavailable):
        database.put({"_id": "a"})
    assert len(scripted.requests) == 2


def test_a_read_is_sent_once_more(scripted: Any, database: Database, answers: Any) -> None:
    scripted.answers = [answers.raw(b""), answers.reply({"_id": "a"}), answers.raw(b""), answers.raw(b"")]
    assert database.get("a") == {"_id": "a"}
    with pytest.raises(Unavailable):
        database.get("a")
    assert len(scripted.requests) == 4


def test_a_connection_that_the_server_has_closed_is_noticed_before_a_write(
    scripted: Any, database: Database, answers: Any
) -> None:
    scripted.answers = [answers.reply([{"id": "a", "rev": "1-x", "ok": True}], 201)]
    database.bulk([{"_id": "a"}])
    scripted.drop()
    time.sleep(0.05)
    assert database.bulk([{"_id": "a"}]) == [Saved("a", "1-x")]
    assert scripted.connections == 2


def test_threads_share_the_client(scripted: Any, database: Database, answers: Any) -> None:
    scripted.answers = [answers.reply({"_id": "a"})]
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(30):
                assert database.get("a") == {"_id": "a"}
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and scripted.connections <= 6


def test_a_forked_process_does_not_share_its_parent_s_connection(
    scripted: Any, database: Database, answers: Any
) -> None:
    scripted.answers = [answers.reply({"_id": "a"})]
    database.get("a")
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if database.get("a") == {"_id": "a"} else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert database.get("a") == {"_id": "a"}
    assert scripted.connections == 2


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"error": "unauthorized", "reason": "Name or password is incorrect."}, Unauthorised),
        (403, {"error": "forbidden", "reason": "You are not allowed to access this db."}, Unauthorised),
        (403, {"error": "forbidden", "reason": "the status cannot go from 'bad' to 'good'"}, Refused),
        (404, {"error": "not_found", "reason": "Database does not exist."}, NotFound),
        (409, {"error": "conflict", "reason": "Document update conflict."}, Conflict),
        (412, {"error": "precondition_failed", "reason": "x"}, Conflict),
        (400, {"error": "doc_validation", "reason": "Bad special document member: _x"}, Refused),
        (413, {"error": "document_too_large", "reason": "a"}, Refused),
        (429, {"error": "too_many", "reason": "slow down"}, Unavailable),
        (500, {"error": "internal_server_error", "reason": "No DB shards could be opened."}, Unavailable),
        (501, {"error": "not_implemented", "reason": "no"}, DatabaseError),
        (503, b"<html>proxy</html>", Unavailable),
        (500, {"error": "x" * 9000, "reason": None}, Unavailable),
        (418, {"error": "teapot", "reason": {"odd": 1}}, DatabaseError),
    ],
)
def test_each_status_is_an_error_of_its_own(
    scripted: Any, database: Database, answers: Any, status: int, body: Any, kind: type[DatabaseError]
) -> None:
    scripted.answers = [answers.reply(body, status)]
    with pytest.raises(DatabaseError) as caught:
        database.put({"_id": "ma22a000_003"})
    assert type(caught.value) is kind
    if status not in (404, 500):
        assert "ma22a000_003" in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
        b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00" * 70000,
    ],
)
def test_an_answer_that_is_none_is_unavailable(scripted: Any, database: Database, answers: Any, answer: bytes) -> None:
    scripted.answers = [answers.raw(answer)]
    with pytest.raises(Unavailable):
        database.get("a")


def test_a_redirect_does_not_carry_the_password_away(scripted: Any, answers: Any) -> None:
    scripted.answers = [answers.reply({}, 302, "Location: http://127.0.0.1:9/runs\r\n")]
    with pytest.raises(DatabaseError, match="redirects"):
        Server(scripted.url, Credentials("a", "b")).database("runs").info()
    assert len(scripted.requests) == 1


def test_a_bulk_answer_that_does_not_fit_is_an_error(scripted: Any, database: Database, answers: Any) -> None:
    scripted.answers = [answers.reply([{"id": "a", "rev": "1-x"}], 201)]
    with pytest.raises(DatabaseError, match="one result a document"):
        database.bulk([{"_id": "a"}, {"_id": "b"}])


def test_a_cluster_s_202_can_be_told_apart(scripted: Any, database: Database, answers: Any) -> None:
    scripted.answers = [answers.reply([{"id": "a", "rev": "1-x", "ok": True, "accepted": True}], 202)]
    assert database.bulk([{"_id": "a"}]) == [Saved("a", "1-x", accepted=True)]


def test_view_parameters(scripted: Any, database: Database, answers: Any) -> None:
    scripted.answers = [answers.reply({"rows": []})]
    database.view("work/proc0", startkey=["ü", None, {}], endkey="z", reduce=False, limit=3, skip=None, update="lazy")
    assert scripted.requests[0].query == {
        "startkey": '["ü",null,{}]', "endkey": '"z"', "reduce": "false", "limit": "3", "update": "lazy"
    }  # fmt: skip
    database.view("_design/work/_view/proc0", keys=[None, 1])
    assert scripted.requests[1].body == b'{"keys":[null,1]}' and scripted.requests[1].method == "POST"
    assert scripted.requests[1].path == "/runs/_design/work/_view/proc0"
