"""What the broadcast carries: messages of three parts (topic, header as JSON, body), and how they are named.

Topics: ``plot/<run>/<name>`` (header: see :class:`Header`, body: the histogram as ROOT's JSON, which JSROOT draws),
``counts/<run>`` (header: read, done, failed, pending and the workers' state; no body), ``run/<run>`` (header: state
``begun``, ``ended`` or ``final``; no body). A subscriber that joins late gets the last message of each topic.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import orjson

#: What a topic begins with.
KINDS = ("plot", "counts", "run")


@dataclass
class Header:
    """The metadata of a published plot, apart from its bytes. Times are UTC, ISO 8601.

    ``sequence`` grows with each publication of this plot in this run. ``spill`` is the highest number in it, ``spills``
    how many. ``input_time``: when the newest spill in it was taken in; ``output_time``: when the plot was made.
    ``quality``: one of ``plot.QUALITIES``, ``verdict`` the sentence and numbers behind it. ``reference``: name of the
    reference, whose histogram is ``reference_body`` in the body's JSON where there is one.
    """

    run: str
    name: str
    title: str
    reducer: str
    sequence: int
    spill: int | None
    spills: int
    entries: float
    input_time: str | None
    output_time: str
    description: str = ""
    keywords: tuple[str, ...] = ()
    help: str = ""
    tag: str = ""
    style: dict[str, Any] = field(default_factory=dict)
    final: bool = False
    quality: str = "none"
    verdict: dict[str, Any] = field(default_factory=dict)
    reference: str = ""


def topic(kind: str, run: str, name: str = "") -> bytes:
    """The topic of a message; a run's name is quoted as in an address, a plot's own slashes stay."""
    return "/".join(part for part in (kind, quote(run, safe=""), name) if part).encode()


def parsed(topic: bytes) -> tuple[str, str, str]:
    """Kind, run and name of a topic; the name is empty where there is none."""
    kind, _, rest = topic.decode("utf-8", "replace").partition("/")
    run, _, name = rest.partition("/")
    return kind, unquote(run), name


def encoded(header: Header | dict[str, Any]) -> bytes:
    """A header as it is sent."""
    return orjson.dumps(asdict(header) if isinstance(header, Header) else header)
