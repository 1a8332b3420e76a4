"""Blocks of a Samba event whose values are all plain numbers, read by one match and converted without a question.

Nearly every block of a file is like that. A plan is the pattern of a block's layout in which each value may only be
what its conversion cannot refuse: so many digits that the number is within its bounds, or a decimal number. A block
that no plan matches (an unknown value, a word, a number out of bounds) is read by the general way, which has the same
meaning and says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import NamedTuple

from procs.formats.samba_values import GIGA, LIST_KEY, NAN, reference, trigger_bits

Values = tuple[bytes, ...]

VALUE = rb"[-+./:\w]*"  # what any value of a block may be, for the general way
DECIMAL = rb"[-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]{1,3})?|nan|[-+]?inf"
SMALL, LONG, COUNT, WORDS = rb"-?[0-9]{1,9}", rb"-?[0-9]{1,17}", rb"[0-9]{1,9}", rb"oui|vrai|1|non|faux|0"
YES = frozenset((b"oui", b"vrai", b"1"))
KEPT = 4096  # trigger words whose bits are remembered: a handful in a run

#: key: what its value must be, and what stands for a key that is missing
PULSE_INTS: dict[bytes, tuple[bytes, bytes]] = {
    b"Numero": (SMALL, b"-1"), b"Compteur.secondes": (LONG, b"0"), b"Compteur.microsecs": (SMALL, b"0"),
    b"GigaStamp": (SMALL, b"0"), b"TimeStamp": (LONG, b"0"), b"Pretrigger": (SMALL, b"0"),
    b"Filtre.recalcul": (SMALL, b"0"), b"Filtre.nb": (COUNT, b"0"), b"Dimension": (COUNT, b"0"),
}  # fmt: skip
PULSE_FLOATS = (
    b"Horloge", b"Trigger.ampl.pos", b"Trigger.ampl.neg", b"Base", b"Bruit", b"Montee", b"Descente", b"Amplitude",
)  # fmt: skip
EVENT_INTS: dict[bytes, tuple[bytes, bytes]] = {
    b"Numero": (SMALL, b""), b"Date.secondes": (rb"-?[0-9]{1,12}", b"0"), b"Date.microsecs": (SMALL, b"0"),
    b"GigaStamp": (SMALL, b"0"), b"TimeStamp": (LONG, b"0"), b"Bolo.touche": (SMALL, b"-1"),
    b"Voie.touchee": (SMALL, b"-1"), b"Voies.nb": (rb"[0-9]{1,4}", b"-1"),
}  # fmt: skip
EVENT_FLOATS = (b"Temperature", b"TempsMort.secondes", b"TempsMort.microsecs", b"Delai", b"Trigger")

PULSE_VALUES = (
    {key: kind for key, (kind, _) in PULSE_INTS.items()}
    | dict.fromkeys(PULSE_FLOATS, DECIMAL)
    | {b"Reference": VALUE}  # a number or a word
)
EVENT_VALUES = (
    {key: kind for key, (kind, _) in EVENT_INTS.items()}
    | dict.fromkeys((*EVENT_FLOATS, b"T_Bolo"), DECIMAL)
    | {b"Regeneration": WORDS}
)


class Plan(NamedTuple):
    """The pattern of a layout, and where in its groups (with the missing values behind them) each number is."""

    pattern: re.Pattern[bytes]
    missing: Values
    ints: Callable[[Values], Values]
    floats: Callable[[Values], Values]
    lists: tuple[tuple[bytes, int], ...]  # keys of trigger bits and their places
    again: int  # place of Regeneration, -1 without
    reference: int  # place of Reference, -1 without
    bits: dict[Values, tuple[int, int]]  # by the trigger words seen
    references: dict[bytes, tuple[float, str]]  # by the words seen


def _plan(
    pattern: re.Pattern[bytes], keys: Sequence[bytes], ints: dict[bytes, tuple[bytes, bytes]], floats: Sequence[bytes]
) -> Plan:
    """``keys`` are those of the pattern's groups, after the first group, which is the tag's."""
    places = {key: place for place, key in enumerate(keys, start=1)}
    if b"Temperature" in floats and b"Temperature" not in places and b"T_Bolo" in places:
        places[b"Temperature"] = places[b"T_Bolo"]
    missing: list[bytes] = [b"nan"]
    end = len(keys) + 1
    for key, (_, instead) in ints.items():
        if key not in places:
            places[key] = end + len(missing) if instead else 0  # an event without a number has that of its tag
            missing += [instead] if instead else []
    return Plan(
        pattern,
        tuple(missing),
        itemgetter(*(places[key] for key in ints)),
        itemgetter(*(places.get(key, end) for key in floats)),
        tuple((key, places[key]) for key in keys if LIST_KEY.match(key)),
        places.get(b"Regeneration", -1),
        places.get(b"Reference", -1),
        {},
        {},
    )


def pulse_plan(pattern: re.Pattern[bytes], keys: Sequence[bytes]) -> Plan:
    """The plan of a ``* Voie`` block."""
    return _plan(pattern, keys, PULSE_INTS, PULSE_FLOATS)


def event_plan(pattern: re.Pattern[bytes], keys: Sequence[bytes]) -> Plan:
    """The plan of a ``* Evenement`` block."""
    return _plan(pattern, keys, EVENT_INTS, EVENT_FLOATS)


def pulse_row(
    plan: Plan, values: Values, channel: int, words: dict[str, int]
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The rows of ``PULSE_INTS`` and ``PULSE_FLOATS`` of a batch, for a match's groups.

    ``words``: the words of Reference so far, each with its number; a new one is added.
    """
    values += plan.missing
    level, word = NAN, ""
    if plan.reference >= 0:
        raw = values[plan.reference]
        found = plan.references.get(raw)
        if found is None:
            found = reference({b"Reference": raw})
            if found[1] and len(plan.references) < KEPT:
                plan.references[raw] = found
        level, word = found
    number, seconds, micro, giga, time, before, again, filters, points = map(int, plan.ints(values))
    clock, high, low, base, *rest = map(float, plan.floats(values))
    row = (
        channel, number, seconds, micro, giga * GIGA + time, before, again,
        words.setdefault(word, len(words)) if word else -1, filters if points else 0, points,
    )  # fmt: skip
    return row, (clock * 1e6, high, low, base, level, *rest)


def event_row(plan: Plan, values: Values) -> tuple[tuple[int, ...], tuple[float, ...], tuple[int, int], int]:
    """The rows of ``EVENT_INTS`` and ``EVENT_FLOATS`` of a batch, the trigger's bits, and how many pulses follow."""
    values += plan.missing
    number, seconds, micro, giga, time, detector, channel, declared = map(int, plan.ints(values))
    temperature, dead, dead_micro, delay, trigger = map(float, plan.floats(values))
    again = plan.again >= 0 and values[plan.again] in YES
    words = tuple(values[place] for _, place in plan.lists)
    bits = plan.bits.get(words)
    if bits is None:
        fields = {key: values[place] for key, place in plan.lists}
        bits = trigger_bits(fields, list(fields))
        if len(plan.bits) < KEPT:
            plan.bits[words] = bits
    if dead != dead:  # NaN: not given
        dead = dead_micro * 1e-6 if dead_micro == dead_micro else NAN
    elif dead_micro == dead_micro:
        dead += dead_micro * 1e-6
    ints = (number, seconds, micro, giga * GIGA + time, again, detector, channel)
    return ints, (temperature, dead, delay, trigger), bits, declared
