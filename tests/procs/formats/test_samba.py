"""Samba files as FORMATS describes them, built here by hand (not by this project's writer), traps included."""

from __future__ import annotations

import re
import struct
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import FormatError
from procs.formats import samba
from procs.formats.samba_batch import SambaBatch, concatenate
from procs.formats.samba_events import EventReader
from procs.formats.window import Window

NAMES = ("ionisA FID802", "chaleur FID802")


def header(
    order: str = "little", *, extra: str = "", names: tuple[str, ...] = NAMES, filters: bytes = b"", run: str = ""
) -> bytes:
    voices = b""
    for name in names:
        voices += (
            f'* Voie "{name}":\nVoie.duree = 10.24\t# ms\nVoie.pretrigger = 25\nVoie.ADUenmV = -0.25\n'
            "Voie.trigger.type = montee\n* ----------\n"
        ).encode()
        voices += filters
    return (
        f"""* Archive SAMBA
* Version 9.35
# ===== Entete generale =====
Intitule = "Edelweiss, essai = 3 # pas un commentaire"\t# un commentaire
Date = 12/01/22
Heure = 10:11:12
Echantillonage = 100.0
Byte-order = {order}\t# ordre des octets
Bolo.nb = 1
Voies.nb = {len(names)}
Release = 9.35
{extra}* ----------
* Detecteur FID802
Bolo.etat = indetermine
Bolo.position = 0101
Bolo.masse = 0.82
Bolo.reglages = (
\t{{ polar-A := -1.5 }},
\t{{ gain-ionisA := inf }}
)
* ----------
* Physique
liste = ( charge, light )
* ----------
""".encode()
        + voices
        + f"""* Run
Run = ma22a000
Type = "Calibration Gamma"
Condition = inconnu
Temperature = 0.018
Date.secondes = 1327227072
Duree.tampon = 20000
Trigger.actif = oui
{run}* ----------
* Donnees
""".encode()
    )


def event(number: int, pulses: list[bytes], *, lists: str = "Liste:31-0 = 3\n", count: int | None = None) -> bytes:
    declared = len(pulses) if count is None else count
    return (
        f"* Evenement {number}\n# ===== Entete d'evenement =====\n\tNumero = {number}\t# Numero\n\tRegeneration = oui\n"
        f"\tDate.secondes = 1327227{number:03d}\n\tDate.microsecs = 17\n\tGigaStamp = 2\n\tTimeStamp = 345\n"
        "\tTempsMort.secondes = 1\n\tTempsMort.microsecs = 500000\n\tDelai = 0.25\n\tTrigger = 0.5\n"
        f"\tTemperature = 0.0181\n{lists}\tBolo.touche = 0\n\tVoie.touchee = 1\n\tVoies.nb = {declared}\n* ----------\n"
    ).encode() + b"".join(pulses)


def pulse(name: str, trace: bytes, *, filters: bytes = b"", dimension: int | None = None, extra: str = "") -> bytes:
    points = len(trace) // 2 if dimension is None else dimension
    return (
        (
            f'* Voie "{name}"\n\tNumero = 4\n\tCompteur.secondes = 8\n\tCompteur.microsecs = 9\n\tGigaStamp = 0\n'
            f"\tTimeStamp = 12\n\tHorloge = 0.01\t# ms\n\tDimension = {points}\n\tTrigger.ampl.pos = 40\n"
            "\tTrigger.ampl.neg = -inf\n\tPretrigger = 2\n\tBase = -12.5\n\tReference = brutes\n\tBruit = 1e-3\n"
            f"\tMontee = 0.02\n\tDescente = 4\n\tAmplitude = -300.25\n\tFiltre.nb = {len(filters) // 8}\n{extra}"
            "\tFiltre.recalcul = 0\n* ----------\n"
        ).encode()
        + filters
        + trace
    )


TRAILER = (
    b"14:15:16 Arret demande par simdaq1\n* Arret normal\n# ===== Fin de run =====\nDate.secondes = 1327229999\n"
    b"Date.microsecs = 0\n* ----------\n"
)


def ramp(start: int, points: int = 8, order: str = "<") -> bytes:
    return np.arange(start, start + points).astype(order + "i2").tobytes()


def write(folder: Path, content: bytes, name: str = "ma22a000_003") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def read(path: Path, **options: object) -> tuple[samba.SambaFile, SambaBatch]:
    file = samba.open(path)
    return file, concatenate(list(file.batches(**options)))  # type: ignore[arg-type]


def two_events(order: str = "<") -> bytes:
    return b"".join(
        event(number, [pulse(name, ramp(100 * number + index, order=order)) for index, name in enumerate(NAMES)])
        for number in (1, 2)
    )


def test_headers_are_typed(tmp_path: Path) -> None:
    extra = "Variables = ( { alpha := 1 },\n {beta := oui}\n)\n"
    file = samba.open(write(tmp_path, header(extra=extra) + two_events()))
    assert (file.run_name, file.file_number, file.part) == ("ma22a000", 3, "partition")
    general = file.header.general
    assert general["Intitule"] == "Edelweiss, essai = 3 # pas un commentaire"
    assert general["Voies.nb"] == 2 and general["Echantillonage"] == 100.0 and general["Heure"] == "10:11:12"
    assert general["Variables"] == {"alpha": 1, "beta": True}
    detector = file.detectors[0]
    assert detector.name == "FID802"
    assert detector.settings["Bolo.etat"] is None and detector.settings["Bolo.position"] == 0x101
    assert detector.settings["Bolo.reglages"] == {"polar-A": -1.5, "gain-ionisA": float("inf")}
    assert file.header.physics == {"liste": ["charge", "light"]}
    assert [(c.name, c.detector, c.kind) for c in file.channels] == [
        (NAMES[0], "FID802", "ionisation"),
        (NAMES[1], "FID802", "heat"),
    ]
    assert file.channels[1].settings["Voie.trigger.type"] == "montee"
    assert (
        file.run["Condition"] is None and file.run["Type"] == "Calibration Gamma" and file.run["Trigger.actif"] is True
    )


@pytest.mark.parametrize("order", ["little", "big"])
def test_events_and_pulses(tmp_path: Path, order: str) -> None:
    sign = "<" if order == "little" else ">"
    file, batch = read(write(tmp_path, header(order) + two_events(sign)))
    assert batch.number.tolist() == [1, 2] and batch.counts.tolist() == [2, 2]
    assert batch.seconds.tolist() == [1327227001, 1327227002] and batch.microseconds.tolist() == [17, 17]
    assert batch.stamp.tolist() == [2_000_000_345] * 2
    assert batch.dead_time.tolist() == [1.5, 1.5] and batch.delay[0] == 0.25 and batch.trigger[0] == 0.5
    assert batch.temperature[1] == 0.0181 and batch.regeneration.all()
    assert batch.trigger_bits.tolist() == [3, 3] and batch.touched_channel.tolist() == [1, 1]
    assert batch.channel.tolist() == [0, 1, 0, 1] and batch.lengths.tolist() == [8] * 4
    assert batch.ns_per_point[0] == pytest.approx(10_000) and batch.pretrigger[0] == 2
    assert batch.base[0] == -12.5 and batch.noise[0] == 1e-3 and batch.amplitude[0] == -300.25
    assert batch.rise[0] == 0.02 and batch.fall[0] == 4 and batch.trigger_negative[0] == -np.inf
    assert np.isnan(batch.reference[0]) and file.reference_words[batch.reference_word[0]] == "brutes"
    assert batch.samples.dtype == np.int16 and batch.samples.flags.writeable
    assert [trace[0] for trace in batch.traces()] == [100, 101, 200, 201]
    assert file.end_of_run is None and file.truncated is None and file.notes == []


def test_a_trace_may_contain_anything(tmp_path: Path) -> None:
    nasty = [
        b"* Evenement 9\nNum",
        b"* ----------\n* Vo",
        b'* Voie "ionisA FI\n',
        b"\n\n\n\n\n\n\n\n",
        b"# ===== Fin de run",
        b"* Arret normal\n..",
    ]
    nasty = [trace + b"\n" * (len(trace) % 2) for trace in nasty]
    body = b"".join(
        event(n + 1, [pulse(NAMES[0], trace), pulse(NAMES[1], trace[::-1])]) for n, trace in enumerate(nasty)
    )
    file, batch = read(write(tmp_path, header() + body + TRAILER))
    assert len(batch) == len(nasty) and file.end_of_run is not None
    assert [trace.tobytes() for trace in batch.traces()][::2] == nasty


def test_filter_values_come_before_the_trace(tmp_path: Path) -> None:
    values = np.array([1.5, -2.25, 1e300])
    body = event(
        1, [pulse(NAMES[0], ramp(5), filters=values.astype(">f8").tobytes()), pulse(NAMES[1], ramp(6, order=">"))]
    )
    _, batch = read(write(tmp_path, header("big") + body))
    assert batch.filters.tolist() == values.tolist() and batch.filter_lengths.tolist() == [3, 0]
    assert batch.samples[8] == 6


@pytest.mark.parametrize("order", ["little", "big"])
def test_filter_blocks_of_the_configuration(tmp_path: Path, order: str) -> None:
    sign = "<" if order == "little" else ">"
    odd = struct.unpack(sign + "d", b"\n\n* Voie")[0]  # bytes that a reader of lines would take for a blank line
    block = b"* Filtre:\n" + struct.pack(sign + "i", 2)
    for direct, inverse in (([odd, 1.0], [-0.5]), ([], [3.0])):
        for half in (direct, inverse):
            block += struct.pack(f"{sign}i", len(half)) + b"".join(struct.pack(sign + "d", value) for value in half)
    file, batch = read(write(tmp_path, header(order, filters=block) + two_events(sign)))
    for channel in file.channels:
        assert [stage.direct.tolist() for stage in channel.filters] == [[odd, 1.0], []]
        assert [stage.inverse.tolist() for stage in channel.filters] == [[-0.5], [3.0]]
    assert len(batch) == 2 and file.notes == []


@pytest.mark.parametrize(
    ("lists", "bits"),
    [
        ("Liste:31-0 = 5\nListe:63-32 = 1\n", 5 | 1 << 32),
        ("Liste:31-00 = 5\n", 5),
        ("\tListe:31-00 = -1 # 1 bit par detecteur\n\tListe:63-32 = 0\n", 0xFFFFFFFF),
        ("Liste:31-0 = 33554432\n", 1 << 25),
        ("Liste:31-0 = 0x0000001f\n", 31),
        ("Liste:31-0 = 00000010\n", 16),
        ("Liste:95-64 = 7\n", 0),
        ("", 0),
    ],
)
def test_trigger_bits(tmp_path: Path, lists: str, bits: int) -> None:
    body = event(1, [pulse(NAMES[0], ramp(0))], lists=lists) + event(2, [pulse(NAMES[0], ramp(0))], lists=lists)
    _, batch = read(write(tmp_path, header() + body))
    assert batch.trigger_bits.tolist() == [bits, bits]
    assert batch.trigger_bits_high.tolist() == ([7, 7] if "95-64" in lists else [0, 0])


@pytest.mark.parametrize(
    ("release", "electrodes"),
    [("9.19", True), ("9.2", False), ("9.18", False), ("10.0", True), ("8.35", False), ("9.35", True)],
)
def test_releases_are_compared_as_whole_numbers(tmp_path: Path, release: str, electrodes: bool) -> None:
    content = header().replace(b"Release = 9.35", f"Release = {release}".encode())
    assert samba.open(write(tmp_path, content)).header.electrode_settings is electrodes


def test_the_trailer_adds_nothing_to_the_last_trace(tmp_path: Path) -> None:
    file, batch = read(write(tmp_path, header() + two_events() + TRAILER))
    assert len(batch) == 2 and batch.pulses == 4 and len(batch.samples) == 32
    assert file.end_of_run == {"reason": "normal", "Date.secondes": 1327229999, "Date.microsecs": 0}
    assert file.log_lines == ["14:15:16 Arret demande par simdaq1"]


def test_stop_on_error(tmp_path: Path) -> None:
    trailer = TRAILER.replace(b"Arret normal", b"Arret sur erreur: tampon plein")
    file, _ = read(write(tmp_path, header() + b"10:11:13 Debut\n" + two_events() + trailer))
    assert file.end_of_run is not None and file.end_of_run["reason"] == "sur erreur: tampon plein"
    assert file.log_lines[0] == "10:11:13 Debut"


def crlf(content: bytes, end: bytes) -> bytes:
    """The same file with other line ends, its binary blocks untouched (they hold no LF)."""
    return content.replace(b"\n", end)


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_old_line_ends(tmp_path: Path, end: bytes) -> None:
    trace = np.array([0x0101, 0x7F0B, -2], "<i2").tobytes()
    body = b"".join(event(n, [pulse(name, trace) for name in NAMES]) for n in (1, 2, 3))
    file, batch = read(write(tmp_path, crlf(header() + body + TRAILER, end)))
    assert len(batch) == 3 and file.end_of_run is not None and file.run["Run"] == "ma22a000"
    assert all(one.tobytes() == trace for one in batch.traces())


def test_a_trace_beginning_with_lf_after_cr_line_ends(tmp_path: Path) -> None:
    trace = b"\n*\n\n"
    body = crlf(event(1, [pulse(NAMES[0], b"")]), b"\r").replace(b"Dimension = 0", b"Dimension = 2") + trace
    _, batch = read(write(tmp_path, crlf(header(), b"\r") + body))
    assert batch.samples.tobytes() == trace


def test_what_real_files_vary(tmp_path: Path) -> None:
    """Key order, spaces, tabs, unknown keys, missing keys and comments, unquoted names, Latin-1, dashes."""
    content = (
        b"# written by hand\n\n*  Archive   SAMBA\n* Version 10.0 # essai\n\n  Voies.nb=2\nByte-order  =  little\n"
        b'Intitule = "Mesure d\'\xe9nergie"\nEchantillonnage = 100\nInconnue.cle = "a = b"\n* -\n'
        b'* Detecteur "FID802":\nBolo.masse = .8\n* ---\n'
        b"* Bidule\nx = 1\n* ----------------------------\n"
        b'* Voie ionisA FID802:\n* ----------\n*\tVoie "chaleur FID802" :\t# chaleur\nVoie.gain= -1e-3\n* ----------\n'
        b"* Run\nRun = xy\n* ----------\n* Donnees\n"
        b"*  Evenement  7\nVoies.nb = 2\nNumero = 7\nCle.inconnue = ( 1, 2 )\n* --\n"
        b'*  Voie  "chaleur FID802"   \n\nDimension=2#\n'.replace(b"2#", b"2 #")
        + b"Amplitude =  +3.5\t # ADU\nHorloge\t=\t0.5\n* --------------------\n\x01\x02\x03\x04"
        + b"* Voie ionisA FID802\nDimension = 0\nAmplitude = indetermine\n* -\n"
    )
    file, batch = read(write(tmp_path, content, "notes of a run"))
    assert file.run_name == "xy" and file.file_number == 0 and file.header.version == "10.0"
    assert file.header.general["Intitule"] == "Mesure d'\u00e9nergie" and file.header.general["Inconnue.cle"] == "a = b"
    assert [channel.name for channel in file.channels] == list(NAMES)
    assert batch.number.tolist() == [7] and batch.channel.tolist() == [1, 0] and batch.lengths.tolist() == [2, 0]
    assert batch.amplitude[0] == 3.5 and np.isnan(batch.amplitude[1]) and batch.samples.tolist() == [0x0201, 0x0403]
    assert np.isnan(batch.temperature[0]) and batch.ns_per_point[0] == 500_000
    assert any("Bidule" in note for note in file.notes)


def test_pulses_without_a_trace_have_no_binary(tmp_path: Path) -> None:
    body = event(1, [pulse(NAMES[0], b""), pulse(NAMES[1], ramp(7))]) + event(2, [pulse(NAMES[1], b"")]) + event(3, [])
    _, batch = read(write(tmp_path, header() + body))
    assert batch.counts.tolist() == [2, 1, 0] and batch.lengths.tolist() == [0, 8, 0] and batch.samples[0] == 7


def test_no_events_and_no_channels_are_fine(tmp_path: Path) -> None:
    file = samba.open(write(tmp_path, header()))
    assert list(file.batches()) == [] and file.truncated is None
    file, batch = read(write(tmp_path, header(names=()) + two_events()))
    assert [channel.name for channel in file.channels] == list(NAMES) and len(batch) == 2


def test_filter_values_without_a_trace_are_not_there(tmp_path: Path) -> None:
    empty = pulse(NAMES[0], b"").replace(b"Filtre.nb = 0", b"Filtre.nb = 3")
    _, batch = read(write(tmp_path, header() + event(1, [empty, pulse(NAMES[1], ramp(7))])))
    assert batch.lengths.tolist() == [0, 8] and batch.filter_lengths.tolist() == [0, 0] and batch.samples[0] == 7


def test_a_filter_in_the_other_byte_order_is_read_and_noted(tmp_path: Path) -> None:
    block = b"* Filtre:\n" + struct.pack(">iidi", 1, 1, 0.5, 0)
    file = samba.open(write(tmp_path, header("little", filters=block) + two_events()))
    assert file.channels[0].filters[0].direct.tolist() == [0.5]
    assert any("other byte order" in note for note in file.notes)
    with pytest.raises(FormatError, match=r"filter stages|coefficients"):
        samba.open(write(tmp_path, header(filters=b"* Filtre:\n" + b"\x7f" * 16) + two_events()))


def test_without_byte_order_the_file_is_big_endian(tmp_path: Path) -> None:
    content = header().replace(b"Byte-order = little\t# ordre des octets\n", b"")
    file, batch = read(write(tmp_path, content + two_events(">")))
    assert batch.samples[0] == 100 and any("Byte-order" in note for note in file.notes)


def test_every_cut_keeps_the_complete_events(tmp_path: Path) -> None:
    start = header()
    first, second = (event(n, [pulse(name, ramp(n)) for name in NAMES]) for n in (1, 2))
    content = start + first + second
    ends = {len(start), len(start + first), len(content)}
    for cut in sorted({*range(len(start), len(content), 3), *ends}):
        path = write(tmp_path, content[:cut])
        whole = (cut >= len(start + first)) + (cut >= len(content))
        boundary = cut in ends
        file = samba.open(path)
        batches = list(file.batches(keep_truncated=True))
        assert sum(len(batch) for batch in batches) == whole, cut
        assert (file.truncated is None) == boundary, cut
        if not boundary:
            assert file.truncated is not None and file.truncated.offset == len(start) + whole * len(first)
            seen = []
            with pytest.raises(FormatError, match="not complete") as caught:
                for batch in file.batches(events=1):
                    seen.append(batch)
            assert caught.value.offset == file.truncated.offset and len(seen) == whole


def test_every_cut_of_the_headers_is_an_error(tmp_path: Path) -> None:
    content = header(filters=b"* Filtre:\n" + struct.pack("<iidi", 1, 1, 0.5, 0))
    for cut in range(0, len(content), 3):
        with pytest.raises(FormatError) as caught:
            samba.open(write(tmp_path, content[:cut]))
        assert caught.value.offset is not None and caught.value.offset <= cut


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"Dimension = 8", b"Dimension = 99999999999", "Dimension: expected"),
        (b"Dimension = 8", b"Dimension = 900000000", "no digitiser"),
        (b"Dimension = 8", b"Dimension = 5000", "Dimension or Filtre.nb is wrong"),
        (b"Dimension = 8", b"Dimension = -8", "Dimension: expected"),
        (b"Dimension = 8", b"Dimension = 7", "expected `"),
        (b"Dimension = 8", b"Dimension = huit", "whole number, found 'huit'"),
        (b"Filtre.nb = 0", b"Filtre.nb = 200", "Dimension or Filtre.nb is wrong"),
        (b"Base = -12.5", b"Base = -12,5", "Base: expected a number"),
        (b"Voies.nb = 2\n* ----------\n* Voie", b"Voies.nb = 3\n* ----------\n* Voie", "number 3 of the 3"),
        (b"Voies.nb = 2\n* ----------\n* Voie", b"Voies.nb = 1\n* ----------\n* Voie", "another one follows"),
        (b'* Voie "chaleur FID802"\n', b'* Voie "chaleur FID999"\n', "no channel 'chaleur FID999'"),
        (b"* Evenement 2", b"* Evanement 2", r"expected `\* Evenement`"),
        (b"* Evenement 2", b"# Evenement 2", r"expected `\* Evenement`"),
        (b"Regeneration = oui", b"Regeneration = 7up", "oui or non"),
        (b"Filtre.recalcul = 0\n* ----------\n", b"Filtre.recalcul = 0\n", "ends|expected"),
    ],
)
def test_inconsistencies_have_an_offset(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    content = header() + two_events()
    assert old in content
    damaged = content.replace(old, new)
    if old.startswith(b"* Voie"):
        at = content.index(old, len(header()) - 20)
        damaged = content[:at] + new + content[at + len(old) :]
    with pytest.raises(FormatError, match=message) as caught:
        list(samba.open(write(tmp_path, damaged)).batches())
    assert caught.value.offset is not None and len(header()) - 10 <= caught.value.offset <= len(damaged)


def test_a_fault_in_the_middle_is_no_truncation(tmp_path: Path) -> None:
    content = header() + two_events().replace(b"Dimension = 8", b"Dimension = 600", 1)
    with pytest.raises(FormatError, match=r"expected `\* Voie` number 2"):
        list(samba.open(write(tmp_path, content)).batches(keep_truncated=True))


@pytest.mark.parametrize("content", [b"", b"* Archive SAMB", b"\x00" * 4096, b"* Voie\n", b"a" * 200_000])
def test_no_samba_file(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        samba.open(write(tmp_path, content))
    assert caught.value.offset == 0


def test_streams(tmp_path: Path) -> None:
    points = np.arange(3000, dtype=np.int16).reshape(-1, 2) * 7
    content = header("big", run="Sauvegarde.stream = direct\n").replace(b"Trigger.actif = oui", b"Trigger.actif = non")
    data = points.astype(">i2").tobytes()
    file = samba.open(write(tmp_path, content + data, "ma22a000_S01"))
    assert file.is_stream and file.part == "stream" and file.file_number == 1
    assert np.array_equal(np.concatenate(list(file.stream(points=128))), points)
    with pytest.raises(FormatError, match="is a stream"):
        list(file.batches())
    file = samba.open(write(tmp_path, content + data[:-1], "ma22a000_000"))
    assert file.is_stream and np.array_equal(np.concatenate(list(file.stream(keep_truncated=True))), points[:-1])
    assert file.truncated is not None and file.truncated.offset == len(content) + len(data) - 4
    with pytest.raises(FormatError, match="3 bytes are left"):
        list(file.stream())
    points[-7:] = 0x4142  # bytes that could be text
    data = points.astype(">i2").tobytes()
    file = samba.open(write(tmp_path, content + b"10:11:12 Debut du stream\n" + data + TRAILER, "ma22a000_S02"))
    assert np.array_equal(np.concatenate(list(file.stream())), points)
    assert file.end_of_run == {"reason": "normal"} and file.log_lines == ["10:11:12 Debut du stream"]
    assert not samba.open(write(tmp_path, header() + two_events())).is_stream


def test_the_fast_path_reads_the_same(tmp_path: Path) -> None:
    body = two_events() + event(3, [pulse(NAMES[1], ramp(3), extra="\tNouveau = x\n"), pulse(NAMES[0], b"")])
    body += event(4, [pulse(NAMES[1], ramp(3)).replace(b"Base = -12.5", b"Base =-12.5   #"), pulse(NAMES[0], ramp(1))])
    path = write(tmp_path, header() + body * 3 + TRAILER)
    fast, slow = read(path)[1], read(path, fast=False)[1]
    for column in type(fast).__slots__:
        assert np.array_equal(getattr(fast, column), getattr(slow, column), equal_nan=column not in ("first",)), column


VALUES = (
    "5", "-5", "+5", "007", "5.", ".5", "5.25", "1e3", "-1.5E-3", "nan", "NaN", "inf", "-inf", "infinity", "-0",
    "1_000", "?", "", "indetermine", "0x1F", "2147483647", "2147483648", "999999999", "1000000000", "-2147483649",
    "1e400", "99999999999999999", "123456789012345678901", "brutes", '"brutes"', "oui", "faux", "1 2", "5   # five",
    "4:2",
)  # fmt: skip


@pytest.mark.parametrize("key", [
    b"Numero", b"Compteur.secondes", b"GigaStamp", b"TimeStamp", b"Pretrigger", b"Base", b"Reference", b"Amplitude",
    b"Filtre.recalcul", b"Date.secondes", b"Regeneration", b"TempsMort.secondes", b"Trigger", b"Temperature",
    b"Bolo.touche", b"Voie.touchee", b"Liste:31-0",
])  # fmt: skip
def test_a_value_is_the_same_number_or_the_same_error_on_the_fast_path(tmp_path: Path, key: bytes) -> None:
    """Whatever stands there: plans take what is plain, and leave the rest to the general way."""
    usual = two_events() * 3  # plans are made of the first blocks
    assert b"%s = " % key in usual
    for text in VALUES:
        changed = re.sub(rb"(\n\t?%s = )[^\t\n]*" % re.escape(key), rb"\g<1>" + text.encode(), two_events())
        path = write(tmp_path, header() + usual + changed + usual + TRAILER)
        found = []
        for fast in (True, False):
            try:
                batch = read(path, fast=fast)[1]
                found.append({name: getattr(batch, name) for name in type(batch).__slots__})
            except FormatError as error:
                found.append({"error": str(error), "offset": error.offset})
        assert found[0].keys() == found[1].keys(), (text, found)
        for name, column in found[0].items():
            same = np.array_equal(column, found[1][name], equal_nan=True) if name not in ("error", "first") else (
                column == found[1][name]
            )
            assert same, (text, name, column, found[1][name])


def test_plain_blocks_are_read_by_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    general = []
    for name in ("event_values", "pulse_values"):
        method = getattr(EventReader, name)
        monkeypatch.setattr(EventReader, name, lambda *words, way=method: general.append(1) or way(*words))
    read(write(tmp_path, header() + two_events() * 50 + TRAILER))
    assert 0 < len(general) < 30


@pytest.mark.parametrize("chunk", [1, 37, 512])
def test_any_window_reads_the_same(tmp_path: Path, chunk: int) -> None:
    path = write(tmp_path, header() + two_events() * 5 + TRAILER)
    expected = read(path)[1]
    file = samba.open(path)
    file.chunk = chunk
    found = concatenate(list(file.batches(events=3)))
    assert found.number.tolist() == expected.number.tolist() and np.array_equal(found.samples, expected.samples)
    assert file.end_of_run is not None


def test_batches_are_bounded(tmp_path: Path) -> None:
    trace = ramp(0, 20_000)
    one = event(1, [pulse(name, trace) for name in NAMES])
    path = tmp_path / "ma22a000_000"
    with path.open("wb") as out:
        out.write(header())
        for _ in range(600):
            out.write(one)
    assert path.stat().st_size > 45e6
    file = samba.open(path)
    tracemalloc.start()
    try:
        sizes = [len(batch) for batch in file.batches(events=20)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sizes == [20] * 30
    assert peak < 24e6
    assert [len(batch) for batch in file.batches(max_bytes=1_000_000)][:2] == [13, 13]


def test_unquoted_names_are_fast_too(tmp_path: Path) -> None:
    body = two_events().replace(b'"', b"").replace(b"Reference = brutes", b"Reference = brutes/ajustees") * 100
    path = write(tmp_path, header() + body)
    file, fast = read(path)
    _, slow = read(path, fast=False)
    assert (
        len(fast) == 200 and np.array_equal(fast.samples, slow.samples) and np.array_equal(fast.channel, slow.channel)
    )
    assert file.reference_words == ["brutes/ajustees"]


@pytest.mark.parametrize("mark", [b"#", b"j", b" ", b"\n"])
def test_an_event_without_channels_is_not_lost_when_its_tag_is_damaged(tmp_path: Path, mark: bytes) -> None:
    damaged = event(2, []).replace(b"* Even", mark + b" Even", 1)
    with pytest.raises(FormatError, match="expected"):
        list(samba.open(write(tmp_path, header() + event(1, []) + damaged + event(3, []))).batches())


def test_a_window_grows_by_doubling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event of many blocks, far larger than a chunk, is not parsed again for each block."""
    path = write(tmp_path, header() + event(1, [pulse(NAMES[n % 2], ramp(n, 100)) for n in range(400)]))
    calls = []
    advance = Window.advance
    monkeypatch.setattr(Window, "advance", lambda self, *args: calls.append(args) or advance(self, *args))
    file = samba.open(path)
    file.chunk = 500
    assert sum(batch.pulses for batch in file.batches()) == 400
    assert len(calls) < 40


FOLDER = tempfile.TemporaryDirectory(prefix="samba-")  # for the examples of hypothesis


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_blanks_comments_and_damage_mean_the_same_on_the_fast_path(data: st.DataObject) -> None:
    """Patterns of just one block's blanks and comments: another block is read as without them, or refused as such."""
    usual, pieces = two_events(), []
    for _ in range(data.draw(st.integers(1, 4))):
        changed = usual
        for _ in range(data.draw(st.integers(0, 3))):
            old, new = data.draw(st.sampled_from([
                (b"\t# ms", b"  # other words"), (b"Base = ", b"Base  =\t"), (b"\tBruit", b"  Bruit"),
                (b"\tHorloge", b"\t# a comment\n\tHorloge"), (b"Amplitude = -300.25", b"Amplitude = indetermine"),
                (b"Pretrigger = 2", b"Pretrigger = 2   "), (b"Numero = 4", b"Numero = x"), (b"\tMontee = 0.02\n", b""),
                (b"Filtre.nb = 0", b"Filtre.nb = 1"), (b"* Voie", b"\n* Voie"), (b"Reference = brutes", b"Reference ="),
                (b"Dimension = ", b"Dimension = 1"), (b"FID", b"FIE"), (b"\n\t", b"\r\n\t"),
            ]))  # fmt: skip
            changed = changed.replace(old, new, data.draw(st.sampled_from([1, -1])))
        pieces.append(changed)
    content = header() + usual * 3 + b"".join(pieces) + usual * 3 + TRAILER
    content = content[: len(content) - data.draw(st.sampled_from([0, 0, len(TRAILER) + 3]))]
    path = write(Path(FOLDER.name), content)
    found = []
    for fast in (True, False):
        file = samba.open(path)
        file.chunk = data.draw(st.sampled_from([64, 1000, 1_000_000]))
        batches, error = [], None
        try:
            batches.extend(file.batches(events=2, fast=fast))
        except FormatError as met:
            error = (str(met), met.offset)
        columns = {name: getattr(concatenate(batches), name) for name in SambaBatch.__slots__} if batches else {}
        found.append((error, file.reference_words, columns))
    assert found[0][:2] == found[1][:2] and found[0][2].keys() == found[1][2].keys()
    for name, column in found[0][2].items():
        assert np.array_equal(column, found[1][2][name], equal_nan=name != "first"), name
