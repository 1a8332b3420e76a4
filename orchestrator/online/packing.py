"""A spill as bytes and back, without making text of its arrays and without running code from it.

The form: the eight bytes ``ORCHSPL1``; the head's length, four bytes, little-endian; the head, JSON; then buffers, each
at a multiple of 64 bytes from the first one's start. In the head an array is ``{"$array": [dtype, shape, offset]}``,
bytes are ``{"$bytes": [offset, length]}``, an awkward array is ``{"$awkward": [form, length, {key: array}]}``, and a
dictionary that has a key which begins with ``$`` is ``{"$dict": [[key, value], ...]}``. Offsets are in bytes from the
first buffer. Numbers that JSON does not have (NaN, infinities) are arrays without dimensions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson

from orchestrator.errors import DataError
from orchestrator.online.spill import Spill

MAGIC = b"ORCHSPL1"
ALIGNMENT = 64  # bytes; a cache line, and enough for every numpy type
DEEPEST = 64  # levels of dicts and lists; more is a mistake or an attack

KINDS = "biufcMmSU?"  # numpy's kinds of types that hold nothing but their bytes


def packed(spill: Spill) -> bytes:
    """Raises DataError for data that cannot be packed, with where they stand."""
    return pack(
        {
            "run": spill.run, "number": spill.number, "time": spill.time, "taken": spill.taken, "data": spill.data,
            "errors": spill.errors,
        }
    )  # fmt: skip


def unpacked(data: bytes | memoryview) -> Spill:
    """The spill; its arrays are views of ``data`` and cannot be written. Raises DataError for bytes that are none."""
    found = unpack(data)
    try:
        return Spill(
            str(found["run"]), int(found["number"]), found["time"], found["taken"], dict(found["data"]),
            dict(found["errors"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"these bytes are no spill: {error!r}") from error


def pack(value: Any) -> bytes:
    """Any value of dicts, lists, JSON values, bytes, numpy and awkward arrays as bytes."""
    buffers = _Buffers()
    head = orjson.dumps(_out(value, buffers, "", 0))
    start = len(MAGIC) + 4 + len(head)
    return b"".join([MAGIC, len(head).to_bytes(4, "little"), head, b"\0" * (-start % ALIGNMENT), *buffers.parts])


def unpack(data: bytes | memoryview) -> Any:
    """What :func:`pack` was given; tuples have become lists. Raises DataError."""
    view = memoryview(data)
    if bytes(view[:8]) != MAGIC:
        raise DataError("these bytes were not packed here: they do not begin as a packed value does")
    size = int.from_bytes(view[8:12], "little")
    start = 12 + size
    try:
        return _in(orjson.loads(view[12:start]), view[start + -start % ALIGNMENT :], 0)
    except Exception as error:  # what numpy and awkward raise for descriptions that are none has no end
        raise DataError(f"these packed bytes are damaged: {error}") from error


class _Buffers:
    def __init__(self) -> None:
        self.parts: list[bytes | memoryview] = []
        self.size = 0

    def add(self, data: bytes | memoryview, size: int) -> int:
        offset = self.size
        self.parts.append(data)
        if size % ALIGNMENT:
            self.parts.append(b"\0" * (-size % ALIGNMENT))
        self.size += size + -size % ALIGNMENT
        return offset


def _array(value: np.ndarray, buffers: _Buffers, place: str) -> dict[str, Any]:
    if value.dtype.kind not in KINDS or value.dtype.hasobject:
        raise DataError(f"the array {place or 'itself'} of type {value.dtype} cannot be packed: numbers and text can")
    shape = list(value.shape)
    value = np.ascontiguousarray(value)
    offset = buffers.add(value.reshape(-1).view(np.uint8).data if value.nbytes else b"", value.nbytes)
    return {"$array": [value.dtype.str, shape, offset]}


def _out(value: Any, buffers: _Buffers, place: str, depth: int) -> Any:
    if depth > DEEPEST:
        raise DataError(f"the data are nested deeper than {DEEPEST} levels at {place[:80]}")
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else _refuse(value, place)
    if isinstance(value, float):
        return value if math.isfinite(value) else _array(np.array(value), buffers, place)
    if isinstance(value, np.ndarray):
        return _array(value, buffers, place)
    if isinstance(value, np.generic):
        return _out(value.item(), buffers, place, depth)
    if isinstance(value, bytes | bytearray | memoryview):
        held = bytes(value)
        return {"$bytes": [buffers.add(held, len(held)), len(held)]}
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise DataError(f"the keys of {place or 'the data'} must be strings")
        inner = {key: _out(one, buffers, f"{place}.{key}", depth + 1) for key, one in value.items()}
        return {"$dict": list(inner.items())} if any(key.startswith("$") for key in inner) else inner
    if isinstance(value, list | tuple):
        return [_out(one, buffers, f"{place}[{index}]", depth + 1) for index, one in enumerate(value)]
    if type(value).__module__.startswith("awkward"):
        return _awkward_out(value, buffers, place)
    return _refuse(value, place)


def _awkward_out(value: Any, buffers: _Buffers, place: str) -> dict[str, Any]:
    import awkward

    form, length, parts = awkward.to_buffers(awkward.to_packed(value))
    held = {key: _array(np.asarray(part), buffers, place) for key, part in parts.items()}
    return {"$awkward": [orjson.loads(form.to_json()), int(length), held]}


def _refuse(value: Any, place: str) -> Any:
    raise DataError(f"{place.lstrip('.') or 'the data'}: {type(value).__name__} cannot be packed")


def _in(value: Any, view: memoryview, depth: int) -> Any:
    if depth > 2 * DEEPEST:
        raise ValueError("nested too deep")
    if isinstance(value, list):
        return [_in(one, view, depth + 1) for one in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        if "$array" in value:
            return _array_in(value["$array"], view)
        if "$bytes" in value:
            offset, length = value["$bytes"]
            return bytes(_part(view, offset, length))
        if "$dict" in value:
            return {key: _in(one, view, depth + 1) for key, one in value["$dict"]}
        if "$awkward" in value:
            import awkward

            form, length, parts = value["$awkward"]
            held = {key: _array_in(part["$array"], view) for key, part in parts.items()}
            return awkward.from_buffers(awkward.forms.from_dict(form), length, held)
    return {key: _in(one, view, depth + 1) for key, one in value.items()}


def _array_in(described: Any, view: memoryview) -> Any:
    name, shape, offset = described
    kind = np.dtype(str(name))
    if kind.hasobject or kind.kind not in KINDS or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"an array of {name!r} with shape {shape}")
    part = _part(view, offset, math.prod(shape) * kind.itemsize)
    found = np.frombuffer(part, kind).reshape(shape) if len(part) else np.zeros(shape, kind)
    return found if shape else found.item() if kind.kind == "f" else found


def _part(view: memoryview, offset: Any, length: Any) -> memoryview:
    if not (isinstance(offset, int) and isinstance(length, int) and 0 <= offset <= offset + length <= len(view)):
        raise ValueError("a buffer lies outside of the bytes")
    return view[offset : offset + length]
