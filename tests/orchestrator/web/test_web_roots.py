"""Files that a document names are shown only from inside the folders that were given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.web.roots import Roots

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 100


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt",
        "a/../../secret.txt",
        "link.txt",
        "linked/secret.txt",
        "pipe",
        ".",
        "",
        "missing",
        "a\0b",
        "~",
        None,
        7,
        ["log.txt"],
        "x" * 5000,
    ],
)
def test_what_is_not_inside_is_not_there(files: Path, name: object) -> None:
    (files / "a").mkdir()
    (files / "link.txt").symlink_to(files.parent / "secret.txt")
    (files / "linked").symlink_to(files.parent)
    (files / "log.txt").write_text("log")
    os.mkfifo(files / "pipe")
    roots = Roots(files)
    assert roots.find(name) is None
    assert roots.tail(name) is None
    assert roots.picture(name) is None


def test_absolute_paths_count_only_inside(files: Path) -> None:
    (files / "log.txt").write_text("log")
    assert Roots(files).find(str(files / "log.txt")) == (files / "log.txt").resolve()
    assert Roots(files).find(str(files.parent / "secret.txt")) is None
    assert Roots(files).find("/etc/passwd") is None
    assert Roots(None).find(str(files / "log.txt")) is None


def test_a_neighbour_whose_name_begins_alike_is_outside(files: Path) -> None:
    other = files.with_name("files2")
    other.mkdir()
    (other / "x.txt").write_text("x")
    assert Roots(files).find("../files2/x.txt") is None


def test_names_with_anything_in_them(files: Path) -> None:
    for name in ("with space.txt", "new\nline.txt", "ünïcode.txt", "$(id);`ls`.txt", "-rf.txt", "%2e%2e.txt"):
        (files / name).write_text(name)
        found = Roots(files).tail(name)
        assert found is not None and found["text"] == name


def test_the_tail_begins_with_a_whole_line(files: Path) -> None:
    lines = "".join(f"line {n}\n" for n in range(10_000))
    (files / "log.txt").write_text(lines)
    tail = Roots(files).tail("log.txt", 1000)
    assert tail is not None and tail["cut"] and tail["size"] == len(lines)
    assert len(tail["text"]) <= 1000 and tail["text"].startswith("line ") and tail["text"].endswith("line 9999\n")


def test_bytes_that_are_no_text_are_shown_all_the_same(files: Path) -> None:
    (files / "log.txt").write_bytes(b"caf\xe9 \xff\n")
    tail = Roots(files).tail("log.txt")
    assert tail is not None and tail["text"] == "caf\ufffd \ufffd\n"


def test_only_what_is_a_png_is_a_picture(files: Path) -> None:
    (files / "p.png").write_bytes(PNG)
    (files / "page.png").write_bytes(b"<html><script>alert(1)</script>")
    assert Roots(files).picture("p.png") == PNG
    assert Roots(files).picture("page.png") is None
