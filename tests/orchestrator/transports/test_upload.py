"""How far a file has come, as its answers come in any order."""

from __future__ import annotations

from typing import Any

from orchestrator.transports import upload
from orchestrator.transports.wire import Kind


class Session:
    """Takes requests and answers them in the order that it is given."""

    block = 10

    def __init__(self, order: list[int]) -> None:
        self.order = order
        self.number = 0

    def request(self, *_: Any, **__: Any) -> tuple[int, bytes]:
        self.number += 1
        return self.number, b""

    def dispatch(self, *_: Any) -> None:
        """Nothing is sent anywhere."""

    def ready(self) -> bool:
        return False

    def next_answer(self) -> tuple[int, Kind, bytes]:
        return self.order.pop(0), Kind.STATUS, b""

    def expect(self, *_: Any) -> None:
        """All is well."""


def test_only_what_is_there_without_a_gap_is_confirmed() -> None:
    told: list[int] = []
    made = upload.Upload(Session([3, 2, 1]), b"handle", b"path", 0, told.append)  # type: ignore[arg-type]
    made.write(bytes(30))
    made._settle(2)  # the third is answered first
    made._settle(1)
    assert told == []
    made._settle(0)
    assert told == [30]
