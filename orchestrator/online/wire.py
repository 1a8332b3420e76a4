"""What the transform and its workers say to each other: messages of a few frames, a spill's bytes always a frame alone.

The transform (a ROUTER) says, first the word, then:

    configure   JSON: session, map, versions, digest, timeout
    birth       JSON: serial, run, header
    spill       sixteen bytes (session, order), a packed spill
    death       nothing
    refuse      a sentence
    ping        nothing; once a second, so that a worker knows that somebody is there
    who         nothing: a worker that is not known (any more) shall join anew
    bye         nothing: the transform ends in good order

A worker (a DEALER) says:

    join        JSON: name, host, pid
    ready       JSON: session, versions, digest, error   (it has the modules, or why not)
    born        JSON: serial, error
    done        the spill's sixteen bytes, JSON: error, module, shown, seconds; the packed result (empty: none)
    leave       nothing: it ends in good order

Nothing is unpickled. What does not have this form is left alone. What a worker says of itself goes into logs, documents
and pages, so it is cut to a length and freed of control characters first.
"""

from __future__ import annotations

import struct
from typing import Any

import orjson
import zmq

from orchestrator.errors import Conflict, SettingsError
from orchestrator.online import sockets, words
from orchestrator.online.store import Outcome

MOST_BYTES = 2**30  # of one message; a spill that is larger goes by reference
JOINS = 2.0  # s between two attempts to join
PINGS = 1.0  # s between two pings
SILENCE = 10.0  # s without a ping after which a worker takes the transform for gone
BEATS = (1000, 5000)  # ms between ZeroMQ's own heartbeats, and until a machine without them is gone
_HEAD = struct.Struct("<8sQ")


def head(session: bytes, order: int) -> bytes:
    """Names a spill between the two, so that an answer to an earlier life of the transform is told from a new one."""
    return _HEAD.pack(session, order)


def order_of(session: bytes, content: bytes) -> int | None:
    """The order in a head; None for one of another session or of another form."""
    if len(content) != _HEAD.size:
        return None
    theirs, order = _HEAD.unpack(content)
    return int(order) if theirs == session else None


def json(value: Any) -> bytes:
    """JSON of plain values. A run's header may hold what JSON has not; that becomes text."""
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)


def fields(content: bytes) -> dict[str, Any]:
    """A message's JSON; empty for what is none."""
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def done(head_: bytes, outcome: Outcome) -> list[bytes]:
    """The frames of a result."""
    said = orjson.dumps([outcome.error, outcome.module, outcome.shown, outcome.seconds])
    return [b"done", head_, said, outcome.packed or b""]


def outcome_of(frames: list[bytes], worker: str) -> Outcome | None:
    """The outcome in the frames of a result, whose number is filled in by who knows it; None for another form."""
    try:
        error, module, shown, seconds = orjson.loads(frames[2])
        packed = frames[3] or None
        if not error and packed is None:
            return None
        trace = words.text(error, words.LONGEST_TRACE) or ("it is said to have failed" if error else "")
        where = words.sentence(module, 2 * words.LONGEST_NAME)
        return Outcome(-1, packed, trace, where, bool(shown), worker, float(seconds))
    except (ValueError, TypeError, IndexError):
        return None


def prepare(socket: Any) -> None:
    """What both ends' sockets need: heartbeats by ZeroMQ's own thread, which a busy module cannot hold up."""
    socket.linger = 0
    socket.heartbeat_ivl, socket.heartbeat_timeout = BEATS
    socket.maxmsgsize = MOST_BYTES
    socket.sndhwm = socket.rcvhwm = 0  # the dispatcher bounds what is on its way


def listen(socket: Any, address: str) -> str:
    """Bind; returns the address with its port. Raises Conflict for a port in use, SettingsError for a bad address."""
    sockets.prepare(address, "workers.address")
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise Conflict(
                f"{address} (workers.address) is in use by another program: end that, or choose another port"
            ) from None
        raise SettingsError(f"{address} (workers.address) cannot be listened at: {error.strerror}") from None
    return str(socket.getsockopt_string(zmq.LAST_ENDPOINT))
