"""Server-sent events as bytes that are made once and sent to everybody, compressed too. Pure.

A gzip stream for each viewer would cost each viewer's share of the processor for the same text. A deflate stream may be
put together from blocks that were compressed apart, as long as each ends at a byte and refers to nothing before it
(RFC 1951, section 3.2; what zlib calls a sync flush). So each event is compressed once, and every viewer's stream is a
gzip head (RFC 1952) with such blocks after it. It has no end, so the checksum at a stream's end is never due.
"""

from __future__ import annotations

import zlib
from typing import Any

import orjson

#: Of a stream whose time, name and system are nobody's business.
HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
#: zlib's levels go from 1 to 9: histograms shrink to a sixth at 4, and 9 would take twice as long for a tenth less.
LEVEL = 4
#: So little is not worth the work.
SMALL = 64


def event(name: str, data: bytes) -> bytes:
    """One event; ``data`` is JSON as orjson writes it, which is one line."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


def said(name: str, data: Any) -> bytes:
    """The same of a value."""
    return event(name, orjson.dumps(data))


def block(text: bytes) -> bytes:
    """A piece of a deflate stream that can follow any other such piece."""
    maker = zlib.compressobj(LEVEL if len(text) > SMALL else 0, zlib.DEFLATED, -15)
    return maker.compress(text) + maker.flush(zlib.Z_SYNC_FLUSH)
