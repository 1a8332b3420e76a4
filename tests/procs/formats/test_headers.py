"""What a file is, and its header as a document carries it."""

from __future__ import annotations

import json
from datetime import date as day
from pathlib import Path

import pytest

from orchestrator.errors import FormatError
from procs import formats
from procs.formats import names
from procs.formats import samba_text as text
from procs.formats.samba_batch import blank_columns
from procs.formats.samba_header import Channel, Detector, SambaHeader
from procs.formats.samba_writer import format_value, write_file


def samba_header(**run: object) -> SambaHeader:
    header = SambaHeader(version="9.35", release="9.35", order="<")
    header.general = {"Intitule": "essai", "Echantillonage": 100.0, "Voies.nb": 1, "Bolo.nb": 1}
    header.detectors = [Detector("FID802", {"Bolo.masse": 0.8})]
    header.channels = [Channel(0, "chaleur FID802", None, {"Voie.seuil": float("inf")})]
    header.run = {
        "Run": "na05b012",
        "Temperature": 0.018,
        "Date.secondes": 1327227072,
        "Date.microsecs": 250_000,
        **run,
    }
    return header


def test_a_samba_header(tmp_path: Path) -> None:
    path = tmp_path / "ma22a000_003"
    write_file(path, samba_header(Condition=None), [])
    assert formats.detect(path) == "samba"
    found = formats.read_header(path)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["format"], found["run_name"], found["file_number"], found["part"]) == (
        "samba",
        "ma22a000",
        3,
        "partition",
    )
    assert (
        found["run_day"] == "2012-01-22" and found["daq_number"] == 1 and found["start"] == "2012-01-22T10:11:12.250Z"
    )
    assert found["condition"] is None and found["temperature"] == 0.018 and found["sampling_khz"] == 100.0
    assert found["detectors"] == ["FID802"] and found["channels"] == ["chaleur FID802"]
    channel = found["samba"]["channels"][0]
    assert channel["Voie.seuil"] is None and channel["detector"] == "FID802"
    assert any("Voie.seuil" in note and "inf" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("name", "run", "number", "part"),
    [
        ("ma22a000_012", "ma22a000", 12, "partition"),
        ("ma22a000_R02", "ma22a000", 2, "regenerated"),
        ("ma22a000_S07", "ma22a000", 7, "stream"),
        ("copy of a run; $(x)\n", "na05b012", 0, "partition"),
        ("ma22a000_12", "na05b012", 0, "partition"),
    ],
)
def test_run_and_number_come_from_the_name_or_the_header(
    tmp_path: Path, name: str, run: str, number: int, part: str
) -> None:
    header = samba_header()
    if part == "stream":
        header.run["Trigger.actif"] = False
    path = tmp_path / name
    write_file(path, header, [])
    if part == "stream":
        path.write_bytes(path.read_bytes() + bytes(range(1, 65)))
    found = formats.read_header(path)
    assert (found["run_name"], found["file_number"], found["part"]) == (run, number, part)


def test_too_many_settings_stay_in_the_file(tmp_path: Path) -> None:
    header = samba_header()
    header.channels = [
        Channel(i, f"voie {i} FID802", None, {f"Voie.cle{k}": k * 1.5 for k in range(60)}) for i in range(100)
    ]
    path = tmp_path / "ma22a000_000"
    write_file(path, header, [])
    found = formats.read_header(path)
    assert len(json.dumps(found)) < 80_000 and len(found["channels"]) == 100
    assert "channels" not in found["samba"] and any("too many" in note for note in found["notes"])


def test_only_the_head_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ma22a000_000"
    write_file(path, samba_header(), [])
    with path.open("ab") as out:
        out.truncate(5 << 30)  # sparse: reading it through would take minutes
    assert formats.read_header(path)["run_name"] == "ma22a000"


def test_the_real_headers(shared_data: Path) -> None:
    found = formats.read_header(shared_data / "mice_06008.000")
    assert found["format"] == "date" and found["run_number"] == 6008 and found["run_name"] == "mice_06008"
    assert found["start"] == "2015-02-13T17:22:24.571Z" and found["file_number"] == 0 and found["notes"] == []
    for path in shared_data.glob("*.root"):
        header = formats.read_header(path)
        assert header["format"] == "root" and header["run_name"] == path.stem and header["notes"] == []


def test_a_cut_root_file(shared_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "run_001.root"
    content = (shared_data / "uproot-Zmumu.root").read_bytes()
    path.write_bytes(content)
    assert formats.read_header(path)["run_name"] == "run" and formats.read_header(path)["file_number"] == 1
    path.write_bytes(content[:-10])
    with pytest.raises(FormatError, match="says that it ends at byte") as caught:
        formats.read_header(path)
    assert caught.value.offset == 12
    path.write_bytes(content[:20])
    with pytest.raises(FormatError):
        formats.read_header(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 100, b"hello world\n", b"root", b"\x00\x00\x00\x00\xfe\x5a\x1e\xda"]
)
def test_what_is_no_raw_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        formats.read_header(path)
    assert caught.value.offset is not None and str(path) in str(caught.value)


def test_run_names() -> None:
    parsed = names.parse_run_name("ma22a000")
    assert parsed is not None and (parsed.day, parsed.daq, parsed.serial) == (day(2012, 1, 22), 1, 0)
    assert (
        names.make_run_name(day(2012, 1, 22)) == "ma22a000"
        and names.make_run_name(day(2013, 12, 5), 3, 17) == "nl05c017"
    )
    assert names.parse_run_name("mb31a000") is None and names.parse_run_name("ma22a0000") is None
    with pytest.raises(ValueError, match="2000-2025"):
        names.make_run_name(day(2026, 1, 1))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("12", 12),
        ("-0", 0),
        ("1_000", "1_000"),
        ("0x1F", 31),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-inf", float("-inf")),
        ("oui", True),
        ("Non", False),
        ("indetermine", None),
        ("inconnu", None),
        ("", None),
        ('"oui"', "oui"),
        ("12/01/22", "12/01/22"),
        ("123456789012345678901234", 123456789012345678901234.0),
        ("()", []),
        ("( charge, light )", ["charge", "light"]),
        ("( { a := 1 }, { b := x y } )", {"a": 1, "b": "x y"}),
        ('( "a, b", 2 )', ["a, b", 2]),
        ("( { a := 1 }\t{ b := 2 }, )", {"a": 1, "b": 2}),
        ("( a # b = c )", ["a # b = c"]),
        ("( ( 1, 2 ), ( 3 ) )", [[1, 2], [3]]),
    ],
)
def test_values_are_typed(written: str, value: object) -> None:
    found = text.typed(written)
    assert found == value and type(found) is type(value)


def test_a_line_is_cut_at_its_first_equals_sign_and_its_comment() -> None:
    assert text.split_assignment('a = "b = c # d"\t# e') == ("a", '"b = c # d"')
    assert text.split_assignment("a := x=y#z # c") == ("a", "x=y#z")
    assert text.split_assignment("# a = b") is None


def test_texts_that_a_header_cannot_hold() -> None:
    with pytest.raises(ValueError, match="quote or a line end"):
        format_value('a "quoted" text')
    assert format_value("12") == '"12"' and format_value("a b") == '"a b"' and format_value("ab") == "ab"


def test_blank_columns_have_the_shapes_of_a_batch() -> None:
    columns = blank_columns(2, 5)
    assert len(columns["number"]) == 2 and len(columns["amplitude"]) == 5
