"""The records of a ROOT file that are written (``baskets``) and looked at again (``recount``) here.

The layout: https://root.cern/doc/master/classTKey.html and classTBasket.html.
"""

from __future__ import annotations

import struct

KEY = struct.Struct(">ihiIhhqq")  # bytes, version, bytes of the object, date, bytes of the key, cycle, seek, directory
BASKET = struct.Struct(">Hiiii")  # version, buffer size, bytes or offsets of an entry, entries, end of the data
COUNT = struct.Struct(">I")
LONG = 255  # bytes: texts from here on have their length in four more bytes


def text(data: bytes) -> bytes:
    """A text as ROOT writes it: its length, and its bytes."""
    length = bytes((len(data),)) if len(data) < LONG else b"\xff" + COUNT.pack(len(data))
    return length + data
