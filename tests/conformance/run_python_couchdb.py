"""Runs python-couchdb's own tests against a server; a program for ``test_python_couchdb_suite``, no test module.

    python run_python_couchdb.py USER   (the server in COUCHDB_URL; on standard input a line with the password, and a
                                         JSON list of the tests that are not to be run)

python-couchdb 1.2 was written for servers where anybody is admin. Here each of its requests to the server under test
gets the admin's login unless it brings one of its own, a replication's two databases get it too (CouchDB 3 wants their
URLs), and the one address that is written into a test leads to the server under test; nothing else is changed. A test
that does not pass is tried once more: the parts of a CouchDB hear of some changes a moment later. Prints one JSON
object: the names of the tests to their outcome, "ok", "left out" or what was raised.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import unittest
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

WRITTEN = "http://localhost:5984"
MISSING, LEFT_OUT = "there is no such test", "left out"
MODULES = ("client", "couch_tests", "design", "couchhttp", "multipart", "mapping", "view", "package", "tools", "loader")


def log_in(name: str, password: str) -> None:
    """Make every request without credentials an admin's."""
    from couchdb import client, http

    plain = http.Session.request
    place = os.environ["COUCHDB_URL"].rstrip("/")

    def request(self: Any, method: str, url: str, *rest: Any, **named: Any) -> Any:
        if named.get("credentials") is None and len(rest) < 3:
            named["credentials"] = (name, password)
        return plain(self, method, url.replace(WRITTEN, place, 1), *rest, **named)

    http.Session.request = request
    end_of = {"auth": {"basic": {"username": name, "password": password}}}
    plainly = client.Server.replicate

    def replicate(self: Any, source: str, target: str, **options: Any) -> Any:
        # CouchDB 3 wants both ends by their URL and with a login, its own databases too.
        ends = [{"url": f"{place}/{quote(one, safe='')}", **end_of} for one in (source, target)]
        said = plainly(self, *ends, **options)
        if options.get("continuous"):
            plainly(self, *ends, **options, cancel=True)
        return said

    client.Server.replicate = replicate


def named(test: unittest.TestCase) -> str:
    """A test's name below python-couchdb's tests."""
    return test.id().removeprefix("couchdb.tests.")


def cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """The tests of a suite one by one."""
    for part in suite:
        if isinstance(part, unittest.TestSuite):
            yield from cases(part)
        else:
            yield part


class Result(unittest.TestResult):
    """Keeps the outcome of each test by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, str] = {}

    def _note(self, test: unittest.TestCase, outcome: str) -> None:
        self.outcomes[named(test)] = outcome

    def addSuccess(self, test: unittest.TestCase) -> None:
        """unittest calls this."""
        self._note(test, "ok")

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        """unittest calls this."""
        self._note(test, repr(err[1]))

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        """unittest calls this."""
        self._note(test, repr(err[1]))

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        """unittest calls this."""
        self._note(test, "ok")


def main() -> None:
    """Run all modules."""
    log_in(sys.argv[1], sys.stdin.readline().rstrip("\n"))
    outcomes: dict[str, str] = dict.fromkeys(json.loads(sys.stdin.readline()), MISSING)
    for part in MODULES:
        module = importlib.import_module(f"couchdb.tests.{part}")
        for _attempt in range(2):
            result = Result()
            for test in cases(unittest.defaultTestLoader.loadTestsFromModule(module)):
                name = named(test)
                if outcomes.get(name) in (MISSING, LEFT_OUT):
                    outcomes[name] = LEFT_OUT
                elif outcomes.get(name) != "ok":
                    test.run(result)
            outcomes.update(result.outcomes)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
