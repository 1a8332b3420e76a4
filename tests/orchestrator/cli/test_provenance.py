"""``provenance`` of files that were copied, renamed, damaged, or that say of themselves what is not true."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import uproot

from orchestrator.couch import Database
from orchestrator.errors import Exit


def put(folder: Path, name: str, content: bytes) -> dict[str, Any]:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"file": str(path), "size": len(content), "checksum": f"sha256:{hashlib.sha256(content).hexdigest()}"}


@pytest.fixture
def made(site: Any, database: Database) -> Path:
    """Two documents with a raw file and two outputs each, which say nothing of themselves."""
    folder = Path(site.folder)
    for number in (0, 1):
        name = f"ma22a000_00{number}"
        database.put({
            "_id": name, "type": "daqdocument", "status": "good", "run_name": "ma22a000", "file_number": number,
            "site": "here", "hostname": "daq1", **put(folder, f"incoming/{name}", b"raw" + name.encode()),
            **{
                f"proc{key}": {"step": step, "state": "done", "attempt": f"a{number}{key}", "number": 1,
                               **put(folder, f"data/{step}/{name}_{step}.txt", f"{step} {name}".encode())}
                for key, step in enumerate(("first", "second"))
            },
        })  # fmt: skip
    return folder


def test_a_copy_under_another_name_is_known_by_its_content(site: Any, made: Path) -> None:
    for source, steps in (
        ("data/second/ma22a000_001_second.txt", ["first", "second"]), ("data/first/ma22a000_001_first.txt", ["first"]),
        ("incoming/ma22a000_001", []),
    ):  # fmt: skip
        copy = made / "elsewhere" / "ma22a000_001_of a friend;x.txt"
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(made / source, copy)
        for path, copied in ((made / source, None), (copy, str(made / source))):
            said = site("provenance", str(path), "--json")
            assert said.code == 0, said.err
            found = said.json
            assert (found["document"], [one["step"] for one in found["steps"]]) == ("ma22a000_001", steps)
            assert (found["copy_of"], found["notes"]) == (copied, [])
        assert f"has the content of {made / source}" in site("provenance", str(copy)).out


def test_a_name_alone_proves_nothing_and_a_document_that_is_named_must_be_there(site: Any, made: Path) -> None:
    stranger = made / "ma22a000_000_second.txt"
    stranger.write_text("somebody's own")
    assert site("provenance", str(stranger)).code == Exit.NOT_FOUND
    own = made / "data/second/ma22a000_000_second.txt"
    said = site("provenance", str(own), "--document", "nosuch")
    assert said.code == Exit.NOT_FOUND and "nosuch" in said.err, "no other document answers for it"
    wrong = site("provenance", str(own), "--document", "ma22a000_001")
    assert wrong.code == 1 and "no step of the document" in wrong.err
    own.write_text("changed by hand")
    changed = site("provenance", str(own))
    assert changed.code == 1 and "content is not what the database says" in changed.err


def test_what_a_file_says_of_itself_is_looked_at_and_never_followed(site: Any, made: Path) -> None:
    notes = [
        {"document": ["ma22a000_000"]}, {"document": {"id": 1}, "attempt": 3}, {"document": "../_design/guard"},
        {"document": "", "input": "x"}, [], 3,
    ]  # fmt: skip
    for number, note in enumerate(notes):
        path = made / f"liar{number}.root"
        with uproot.recreate(path) as file:
            file["provenance"] = json.dumps(note)
        assert site("provenance", str(path)).code == Exit.NOT_FOUND
    with uproot.recreate(made / "other.root") as file:
        file["provenance"] = json.dumps({"document": "ma22a000_000", "attempt": "a00", "input": "x"})
    said = site("provenance", str(made / "other.root"))
    assert said.code == 1 and "content is not what the database says" in said.err and "no step" in said.err


def test_a_damaged_output_is_told_of_by_the_database(site: Any, database: Database, made: Path) -> None:
    path = made / "data/second/ma22a000_000_second.root"
    document = database.get("ma22a000_000")
    database.put({**document, "proc1": {**document["proc1"], "file": str(path), "checksum": "sha256:0"}})
    with uproot.recreate(path) as file:
        file["provenance"] = "no JSON at all"
    whole = path.read_bytes()
    half = whole[: len(whole) // 2]
    for content, word in ((whole, "is not JSON"), (half, "cannot be read"), (b"", "content is not")):
        path.write_bytes(content)
        said = site("provenance", str(path))
        assert (said.code, word in said.err) == (1, True), said.err
        assert "second, attempt 1 (a01)" in said.out, "what the database knows of it is told all the same"
