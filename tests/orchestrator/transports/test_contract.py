"""What every transport promises, on this machine and through a real sshd."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.transports import (
    FileRefused,
    LocalTransport,
    Transport,
    TransportError,
    TransportUnavailable,
    helper,
    sums,
)
from orchestrator.transports.base import digest
from orchestrator.transports.model import Placed
from orchestrator.transports.ssh import SshTransport
from orchestrator.transports.testing import Sshd

ODD = [
    "plain",
    "a b",
    "it's",
    'a"b',
    "$(touch pwned)",
    "new\nline",
    "-rf",
    "*",
    "ä€",
    os.fsdecode(b"\xff\xfelatin\xe9"),
]


@pytest.fixture(params=["local", "ssh"])
def there(request: pytest.FixtureRequest) -> Iterator[Transport]:
    """A transport whose relative paths begin in an empty folder, or in the account's home."""
    if request.param == "local":
        with tempfile.TemporaryDirectory() as home:
            yield LocalTransport(Path(home))
        return
    server: Sshd = request.getfixturevalue("sshd")
    with SshTransport(server.access()) as transport:
        yield transport


@pytest.fixture
def folder(there: Transport) -> Iterator[str]:
    name = f"test {os.urandom(4).hex()}"
    there.mkdir(name)
    yield name
    there.run(["rm", "-rf", "--", name])


def test_a_command_answers_with_its_code_and_both_outputs(there: Transport) -> None:
    answer = there.run(["sh", "-c", "cat; echo problem >&2; exit 3"], stdin=b"input\n")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (3, "input\n", "problem\n")
    assert not answer.ok and answer.said == "problem"


def test_arguments_arrive_as_they_are(there: Transport) -> None:
    answer = there.run(["printf", "%s\\0", *ODD, ""])
    assert answer.stdout.split("\0") == [*ODD, "", ""]
    assert there.stat("pwned") is None


def test_a_program_that_is_not_there_is_code_127(there: Transport) -> None:
    assert there.run(["no-such-program-here"]).exit_code == 127


def test_a_signal_shows_in_the_code(there: Transport) -> None:
    assert there.run(["sh", "-c", "kill -9 $$"]).exit_code == 137


def test_folder_and_environment_of_a_command(there: Transport, folder: str) -> None:
    answer = there.run(["sh", "-c", 'pwd; echo "$WORD"'], directory=folder, environment={"WORD": "a 'b' $c"})
    assert answer.stdout.splitlines() == [there.absolute(folder), "a 'b' $c"]
    assert there.run(["true"], directory="no such folder").exit_code == 111


def test_much_output_on_both_streams_does_not_deadlock(there: Transport) -> None:
    script = "i=0; while [ $i -lt 40 ]; do head -c 100000 /dev/zero >&2; head -c 100000 /dev/zero; i=$((i+1)); done"
    answer = there.run(["sh", "-c", script], timeout=30)
    assert (len(answer.stdout), len(answer.stderr)) == (4_000_000, 4_000_000)


def test_a_program_that_reads_no_input_ends_all_the_same(there: Transport) -> None:
    assert there.run(["true"], stdin=b"x" * 5_000_000, timeout=20).exit_code == 0


def test_a_program_that_takes_too_long_is_killed_with_what_it_started(there: Transport) -> None:
    mark = f"31{int.from_bytes(os.urandom(3), 'big')}"
    began = time.monotonic()
    with pytest.raises(TransportUnavailable, match=r"did not end within 0.5 s and was killed") as caught:
        there.run(["sh", "-c", f"sleep {mark}.1 & sleep {mark}.2"], timeout=0.5)
    assert caught.value.perhaps_done and time.monotonic() - began < 10
    end = time.monotonic() + 5
    while (left := there.run(["ps", "-eo", "stat=,args="]).stdout) and time.monotonic() < end:
        sleeping = [line for line in left.splitlines() if f"sleep {mark}" in line and not line.startswith("Z")]
        if not sleeping:
            break
    assert sleeping == []


def test_endless_output_is_refused(there: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    import orchestrator.transports.command as command
    import orchestrator.transports.local as local

    monkeypatch.setattr(command, "OUTPUT_LIMIT", 100_000)
    monkeypatch.setattr(local, "OUTPUT_LIMIT", 100_000)
    with pytest.raises(TransportError, match="printed more than 100000 bytes"):
        there.run(["head", "-c", "3000000", "/dev/zero"], timeout=20)


@pytest.mark.parametrize("name", ODD)
def test_files_of_any_name(there: Transport, folder: str, name: str) -> None:
    path = f"{folder}/{name}"
    assert not there.exists(path)
    there.write(path, b"\0\xff data")
    assert there.read(path) == b"\0\xff data"
    assert [(entry.name, entry.size, entry.is_file) for entry in there.list(folder)] == [(name, 7, True)]
    assert there.checksum(path) == "sha256:" + hashlib.sha256(b"\0\xff data").hexdigest()
    assert there.checksum(path, 2) == "sha256:" + hashlib.sha256(b"\0\xff").hexdigest()
    there.rename(path, f"{path}.new")
    assert there.size(f"{path}.new") == 7
    assert there.remove(f"{path}.new") is True
    assert there.remove(f"{path}.new") is False
    assert there.list(folder) == [] and not there.exists("pwned")


def test_rename_replaces_and_rename_new_does_not(there: Transport, folder: str) -> None:
    there.write(f"{folder}/a", b"a")
    there.write(f"{folder}/b", b"b")
    assert there.rename_new(f"{folder}/a", f"{folder}/b") is False
    assert (there.read(f"{folder}/a"), there.read(f"{folder}/b")) == (b"a", b"b")
    there.rename(f"{folder}/a", f"{folder}/b")
    assert there.read(f"{folder}/b") == b"a" and not there.exists(f"{folder}/a")
    assert there.rename_new(f"{folder}/b", f"{folder}/c") is True
    assert [entry.name for entry in there.list(folder)] == ["c"]


def test_folders(there: Transport, folder: str) -> None:
    there.mkdir(f"{folder}/x/y/z")
    there.mkdir(f"{folder}/x/y/z")
    found = there.stat(f"{folder}/x/y")
    assert found is not None and found.is_folder
    there.write(f"{folder}/file", b"")
    with pytest.raises(FileRefused):
        there.mkdir(f"{folder}/file/below")


def test_refusals_have_a_reason(there: Transport, folder: str) -> None:
    with pytest.raises(FileRefused, match="there is no file") as caught:
        there.size(f"{folder}/absent")
    assert caught.value.errno == errno.ENOENT and not caught.value.transient
    for refused in (lambda: there.read(f"{folder}/absent"), lambda: there.list(f"{folder}/absent")):
        with pytest.raises(FileRefused) as caught:
            refused()
        assert caught.value.errno == errno.ENOENT
    with pytest.raises(ValueError, match="is no path"):
        there.read("a\0b")


def test_put_and_get_a_large_file(there: Transport, folder: str, tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    (tmp_path / "source").write_bytes(data)
    there.put(tmp_path / "source", f"{folder}/copy")
    assert there.size(f"{folder}/copy") == len(data)
    there.get(f"{folder}/copy", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "source"]
    assert [entry.name for entry in there.list(folder)] == ["copy"]
    assert b"".join(there.receive(f"{folder}/copy", length=1_234_567)) == data[:1_234_567]
    with pytest.raises(TransportError, match="too long to read"):
        there.read(f"{folder}/copy", limit=1000)


def test_a_reader_that_stops_early_disturbs_nobody(there: Transport, folder: str) -> None:
    there.write(f"{folder}/long", b"x" * 10_000_000)
    for _ in range(3):
        chunks = there.receive(f"{folder}/long")
        assert next(chunks)[:1] == b"x"
        chunks.close()  # type: ignore[attr-defined]
    assert there.size(f"{folder}/long") == 10_000_000


def test_send_goes_on_at_an_offset_and_cuts_what_follows(there: Transport, folder: str) -> None:
    there.write(f"{folder}/part", b"0123456789")
    seen: list[int] = []
    sent = there.send(f"{folder}/part", [b"ab", b"c"], offset=4, confirmed=seen.append, read_back=100)
    assert (sent.size, there.read(f"{folder}/part")) == (7, b"0123abc")
    assert sent.read_back == b"0123abc" and seen[-1] == 7


def test_a_source_that_fails_leaves_the_transport_usable(there: Transport, folder: str) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 100_000
        raise OSError(errno.EIO, "the disk here is broken")

    with pytest.raises(OSError, match="the disk here is broken"):
        there.send(f"{folder}/part", chunks())
    there.write(f"{folder}/other", b"fine")
    assert there.read(f"{folder}/other") == b"fine"


def test_files_of_unknown_length_are_read(there: Transport) -> None:
    assert b"MemTotal" in there.read("/proc/meminfo")


def test_space(there: Transport, folder: str) -> None:
    room = there.space(folder)
    assert room is not None and 0 < room.free <= room.total


def test_one_transport_serves_threads(there: Transport, folder: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def use(number: int) -> bool:
        data = os.urandom(50_000)
        path = f"{folder}/{number}"
        there.write(path, data)
        same = there.checksum(path) == digest([data]) and there.read(path) == data
        return same and there.run(["cat", there.absolute(path)], timeout=20).exit_code == 0

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(24)))


@pytest.fixture(params=["python", "shell"])
def summing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who computes checksums at the far end."""
    if request.param == "shell":
        monkeypatch.setattr(helper, "COMMAND", "no-python-here")
    return str(request.param)


def test_a_checksum_that_was_given_up_is_not_taken_for_the_next_one(
    sshd: Sshd, summing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SshTransport(sshd.access()) as transport:
        transport.write("first", b"first")
        transport.write("second", b"second")
        assert transport.checksum("first") == digest([b"first"])
        summer = {"python": transport._sums._asked, "shell": transport._sums._summer}[summing]
        assert summer is not None

        def interrupted() -> bytes:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(summer, {"python": "_answer", "shell": "_until_mark"}[summing], interrupted)
            transport.checksum("first")
        assert transport.checksum("second") == digest([b"second"])
        assert not summer.usable
        transport.remove("first")
        transport.remove("second")


@pytest.mark.parametrize("program", [0, 2])
def test_each_program_for_checksums_gives_the_same(
    sshd: Sshd, program: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if program == 2 and subprocess.run(["which", "openssl"], capture_output=True).returncode:
        pytest.skip("needs openssl: apt-get install openssl")
    monkeypatch.setattr(helper, "COMMAND", "no-python-here")
    monkeypatch.setattr(sums, "FOR_LARGE", (program,))
    monkeypatch.setattr(sums, "LARGE", 1000)
    with SshTransport(sshd.access()) as transport:
        for name, size in (("it's $(large)", 3000), ("small\n", 10)):
            data = os.urandom(size)
            transport.write(name, data)
            assert transport.checksum(name) == digest([data])
            assert transport.checksum(name, size - 1) == digest([data[:-1]])
            assert transport.remove(name)


def test_a_file_gets_its_last_name_only_with_the_right_checksum_and_only_if_it_is_free(
    there: Transport, folder: str
) -> None:
    part, target = f"{folder}/-part $(x)\n", f"{folder}/it's"
    there.write(part, b"content")
    wrong = there.place(part, target, digest([b"other"]), 7)
    assert wrong.checksum == digest([b"content"]) and not wrong.placed and there.stat(target) is None
    assert there.place(part, target, digest([b"content"]), 7).placed is True
    assert there.read(target) == b"content" and there.stat(part) is None
    there.write(part, b"content")
    assert there.place(part, target, digest([b"content"]), 7).placed is False and there.exists(part)
    with pytest.raises(FileRefused) as caught:
        there.place(f"{folder}/absent", target, digest([b"content"]), 7)
    assert caught.value.errno == errno.ENOENT


def test_a_small_file_is_written_proved_and_named_in_one_exchange(sshd: Sshd, far: Path) -> None:
    part, target = far / "-part $(x)\n", far / "it's"
    data = os.urandom(200_000)
    with SshTransport(sshd.access()) as there:
        for flush in (True, False):
            part.write_bytes(b"x" * 300_000)  # of an earlier try
            part.chmod(0o666)
            assert there.deliver(part, target, data, digest([data]), flush=flush) == Placed(digest([data]), True)
            assert target.read_bytes() == data and not part.exists()
            taken = there.deliver(part, target, b"another", digest([b"another"]))
            assert taken is not None and taken.placed is False
            assert target.read_bytes() == data and part.read_bytes() == b"another"
            assert there.remove(part) and there.remove(target)
        wrong = there.deliver(part, target, data, digest([b"other"]))
        assert wrong is not None and wrong.checksum == digest([data]) and not wrong.placed and not target.exists()
        empty = there.deliver(part, target, b"", digest([]))
        assert empty == Placed(digest([]), True) and target.read_bytes() == b""
        with pytest.raises(FileRefused, match=r"could not write .*No such file") as caught:
            there.deliver(far / "absent" / "part", target, data, digest([data]))
        assert caught.value.errno == errno.ENOENT
        assert there.deliver(far / "p", far / "t", b"goes on", digest([b"goes on"])) == Placed(
            digest([b"goes on"]), True
        )


def test_where_links_cannot_be_made_a_small_file_is_renamed(
    sshd: Sshd, far: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_links = helper._PROGRAM.replace("os.link(part, target, follow_symlinks=False)", "raise OSError(1, 'no links')")
    assert no_links != helper._PROGRAM
    monkeypatch.setattr(helper, "_PROGRAM", no_links)
    with SshTransport(sshd.access()) as there:
        assert there.deliver(far / "p", far / "t", b"x", digest([b"x"])) == Placed(digest([b"x"]), True)
        assert (far / "t").read_bytes() == b"x" and not (far / "p").exists()


def test_of_a_small_file_that_was_cut_off_nothing_is_written(sshd: Sshd, far: Path) -> None:
    with SshTransport(sshd.access()) as there:
        assert there.places_at_once() and there._sums._asked is not None
        words = [os.fsencode(far / name).hex() for name in ("part", "target")]
        request = f"put {' '.join(words)} {'0' * 64} 100000 flush\n".encode()
        there._sums._asked._channel.sendall(request + bytes(50_000))
        there._sums._asked.let_go()
        assert not list(far.iterdir())


def test_without_python_there_a_small_file_goes_the_long_way(
    sshd: Sshd, far: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "COMMAND", "no-python-here")
    with SshTransport(sshd.access()) as there:
        assert there.deliver(far / "p", far / "t", b"x", digest([b"x"])) is None and not list(far.iterdir())


def test_a_large_file_is_summed_up_while_it_comes(sshd: Sshd, summing: str) -> None:
    data = os.urandom(20_000_000)
    with SshTransport(sshd.access()) as transport:
        for offset in (0, 5_000_001):
            sent = transport.send("followed", [data[offset:]], offset=offset, follow=True)
            assert sent.checksum == (digest([data]) if summing == "python" else None)
            assert transport.checksum("followed") == digest([data])
        with pytest.raises(ZeroDivisionError):
            transport.send("followed", (bytes(1 // (3 - n)) * 9_000_000 for n in range(9)), follow=True)
        sent = transport.send("followed", [data], follow=True)
        assert sent.checksum == (digest([data]) if summing == "python" else None)
        transport.remove("followed")


def test_python_that_dies_at_the_far_end_is_started_again_and_the_file_goes_on(sshd: Sshd) -> None:
    data = os.urandom(12_000_000)
    with SshTransport(sshd.access()) as transport:

        def chunks() -> Iterator[bytes]:
            yield data[:6_000_000]
            transport.run(["sh", "-c", "kill -9 $(pgrep -u $(id -u) python3)"])
            yield data[6_000_000:]

        assert transport.send("dies", chunks(), follow=True).checksum is None
        assert transport.checksum("dies") == digest([data])
        assert transport.send("dies", [data], follow=True).checksum == digest([data])
        transport.remove("dies")


def test_many_files_are_listed_read_and_removed_as_one_by_one(there: Transport, folder: str) -> None:
    names = [*ODD, *(f"{number}" for number in range(460)), "empty", "long"]
    contents = {f"{folder}/{name}": name.encode("utf-8", "surrogateescape") * 3 for name in names}
    contents |= {f"{folder}/empty": b"", f"{folder}/long": os.urandom(700_000)}
    for path, content in contents.items():
        there.write(path, content)
    there.mkdir(f"{folder}/below")
    listed, below, absent = there.list_many([folder, f"{folder}/below", f"{folder}/absent"])
    assert not isinstance(listed, FileRefused) and {one.name for one in listed} == {*names, "below"}
    assert below == [] and isinstance(absent, FileRefused) and absent.errno == errno.ENOENT
    paths = [*contents, f"{folder}/absent"]
    *read, missing = there.read_many(paths)
    assert read == list(contents.values()) and isinstance(missing, FileRefused) and missing.errno == errno.ENOENT
    long = there.read_many([f"{folder}/long", f"{folder}/0"], limit=1000)
    assert isinstance(long[0], FileRefused) and long[0].errno == errno.EFBIG and long[1] == b"000"
    there.remove_many(paths)
    assert [one.name for one in there.list(folder)] == ["below"]
    there.remove_many([])
    assert there.read_many([]) == [] == there.list_many([])
