"""The layout of DATE files (ALICE's DAQ format, as MICE used it): little-endian 32-bit words throughout."""

from __future__ import annotations

MAGIC = 0xDA1E5AFE  # word 1 of every event header
MAGIC_BYTES = MAGIC.to_bytes(4, "little")
HEADER = 80  # bytes that a header has at least; its own headSize says how many it has
EQUIPMENT_HEADER = 28  # bytes; a block of this size is empty and normal
SUPER = 0xFFFFFFFF  # the LDC id of an event that a GDC assembled from sub-events
VERSION = 0x0003000E  # as in the sample
MAX_EVENT = 1 << 30  # bytes; a larger one is a size gone wrong, not an event

# Words of the header.
SIZE, MAGIC_WORD, HEAD_SIZE, VERSION_WORD, TYPE, RUN, SPILL, NUMBER = range(8)
TRIGGER_PATTERN, DETECTOR_PATTERN, ATTRIBUTES = 8, 10, 11
LDC, GDC, SECONDS, MICROSECONDS = 16, 17, 18, 19

# Event types (word 4).
START_OF_RUN, END_OF_RUN, SOR_FILES, EOR_FILES, START_OF_BURST, END_OF_BURST, PHYSICS, CALIBRATION = range(1, 9)
EVENT_TYPES = {
    START_OF_RUN: "start of run",
    END_OF_RUN: "end of run",
    SOR_FILES: "start-of-run files",
    EOR_FILES: "end-of-run files",
    START_OF_BURST: "start of burst",
    END_OF_BURST: "end of burst",
    PHYSICS: "physics",
    CALIBRATION: "calibration",
}
WITH_EQUIPMENT = frozenset({START_OF_BURST, END_OF_BURST, PHYSICS, CALIBRATION})

# Equipment types.
TRIGGER_RECEIVER, V1290, V830, V1724, V1731, EVENT_BUILDER = 101, 102, 110, 120, 121, 200
EQUIPMENT_NAMES = {
    TRIGGER_RECEIVER: "trigger receiver",
    V1290: "V1290",
    V830: "V830",
    V1724: "V1724",
    V1731: "V1731",
    EVENT_BUILDER: "event builder",
}

NS_PER_COUNT = 0.025  # V1290: 25 ps a count
NUMBER_MASK = 0xFFFFF  # word 7 of the event id: the spill's number << 20, plus the event's number in the spill
