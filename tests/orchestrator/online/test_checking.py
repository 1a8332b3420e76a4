"""What is wrong is refused before anything starts, in one sentence that says what to do."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hist
import pytest
import uproot
import yaml

from orchestrator.cli import main
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.errors import Exit

MODULES = '''
import hist
from orchestrator.online.module import Input, Map, Reduce
from orchestrator.online.plot import Plot

class In(Input):
    defaults = {"files": ""}

class Through(Map):
    defaults = {"scale": 1}

class Sum(Reduce):
    def birth(self, configuration):
        self.held = hist.Hist(hist.axis.Regular(10, 0, 1, label="x"))
    def plots(self):
        yield Plot("sum", "Sum", self.held)

class NoMap:
    pass

class Fragile(Through):
    def __init__(self, settings=None, log=None):
        raise KeyError("calibration")

class Leaves(Through):
    def __init__(self, settings=None, log=None):
        raise SystemExit(9)

class Asks(Sum):
    def birth(self, configuration):
        self.beam = configuration.header["beam"]

class Shows(Sum):
    def plots(self):
        return None

class Away(In):
    def check(self):
        raise OSError(2, "no such device")
'''


def ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    found = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return found


class Site:
    """A folder with an online.yaml that is right, to be spoilt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"checkmodules_{folder.parent.name}_{folder.name}".replace("-", "_")
        (folder / f"{self.name}.py").write_text(MODULES)
        (folder / f"{self.name}_odd.py").write_text("1 / 0")
        a, b, c, d = self.ports = ports(4)
        self.online: dict[str, Any] = {
            "input": {"module": f"{self.name}:In"},
            "map": [{"module": f"{self.name}:Through"}],
            "reduce": [{"name": "sum", "module": f"{self.name}:Sum"}],
            "workers": {"address": f"tcp://127.0.0.1:{a}"},
            "broadcast": {"publish": f"tcp://127.0.0.1:{b}", "subscribe": f"tcp://127.0.0.1:{c}"},
            "web_port": d,
            "store": {"kind": "memory"},
        }

    def call(self, *words: str) -> int:
        (self.folder / "online.yaml").write_text(yaml.safe_dump(self.online))
        return main(["-C", str(self.folder), "online", *words])


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    yield Site(tmp_path)


def refused(site: Site, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of a start, and what was said: one line, no traceback; and nothing runs."""
    code = site.call("start")
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1 and said.startswith("orchestrator: "), said
    assert not (site.folder / "online" / "up.json").exists()
    return code, said.removeprefix("orchestrator: ")


def test_all_checks_of_a_right_configuration_pass(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.call("check", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["check"] for one in found] == [
        "configuration", "modules", "input", "keys", "references", "ports", "database", "disk",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        ({"inputs": {}}, Exit.SETTINGS, "online.yaml: inputs: there is no such name here: correct or remove it"),
        ({"input": {"module": "nowhere:In"}}, Exit.SETTINGS,
         "the module 'nowhere:In' cannot be loaded: No module named 'nowhere'"),
        ({"map": [{"module": "{me}:Thorough"}]}, Exit.SETTINGS, "'{me}' has no 'Thorough': correct the module's name"),
        ({"map": [{"module": "{me}:NoMap"}]}, Exit.SETTINGS,
         "'{me}:NoMap' is not a subclass of orchestrator.online.module.Map"),
        ({"map": [{"module": "{me}:Through", "settings": {"scales": 2}}]}, Exit.SETTINGS,
         "Through has no setting 'scales' (settings: scale)"),
        ({"workers": {"address": "5610"}}, Exit.SETTINGS,
         "workers.address: '5610' is no address: write tcp://HOST:PORT, such as tcp://127.0.0.1:5610"),
        ({"input": {"module": "{me}_odd:In"}}, Exit.SETTINGS, "cannot be loaded: ZeroDivisionError: division by zero"),
        ({"input": {"module": "..odd:In"}}, Exit.SETTINGS, "'..odd:In' names no module"),
        ({"map": [{"module": "{me}:Fragile"}]}, Exit.SETTINGS, "{me}:Fragile cannot be made: KeyError: 'calibration'"),
        ({"map": [{"module": "{me}:Leaves"}]}, Exit.SETTINGS, "{me}:Leaves cannot be made: SystemExit: 9"),
        ({"reduce": [{"name": "a", "module": "{me}:Asks"}]}, Exit.SETTINGS,
         "the reducer a ({me}:Asks) cannot begin a run whose header is empty: KeyError: 'beam'"),
        ({"reduce": [{"name": "a", "module": "{me}:Shows"}]}, Exit.SETTINGS,
         "the reducer a ({me}:Shows) has no plots to show after its birth: TypeError"),
        ({"input": {"module": "{me}:Away"}}, Exit.SETTINGS,
         "the input {me}:Away cannot be used: FileNotFoundError: [Errno 2] no such device"),
        ({"input": {"module": "procs.online.inputs.date:DateInput", "settings": {"files": "/x/*", "grow": "no"}}},
         Exit.SETTINGS, "DateInput: grow is true or false, not 'no'"),
        ({"workers": {"address": "tcp://127.0.0.1:65536"}}, Exit.SETTINGS, "a port is 65535 at most"),
        ({"workers": {"remote": ["a\u001bb"]}}, Exit.SETTINGS, "cannot be a worker's name"),
        ({"web_host": "no.such.host.invalid"}, Exit.SETTINGS,
         "this machine cannot listen at 'no.such.host.invalid' (web_host)"),
        ({"workers": {"address": "tcp://*:5610"}}, Exit.SETTINGS, "tcp://*:5610 can be reached from other machines"),
        ({"store": {"kind": "couch"}}, Exit.UNAVAILABLE, "no database answers at http://127.0.0.1:{free}: start it"),
        ({"references": [{"file": "good.root"}]}, Exit.SETTINGS, "good.root"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_in_one_sentence(
    site: Site, capsys: pytest.CaptureFixture[str], change: dict[str, Any], code: int, sentence: str
) -> None:
    free = ports(1)[0]
    (site.folder / "orchestrator.yaml").write_text(f"url: http://127.0.0.1:{free}\n")

    def put(text: str) -> str:
        return text.replace("{me}", site.name).replace("{free}", str(free))

    site.online |= json.loads(put(json.dumps(change)))
    found, said = refused(site, capsys)
    assert (found, put(sentence) in said) == (code, True), said


def test_a_port_in_use_is_named(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", site.ports[2]))
        other.listen()
        code, said = refused(site, capsys)
    assert code == Exit.CONFLICT
    wanted = f"port {site.ports[2]} (broadcast.subscribe) is in use by another program: end that, or choose another"
    assert said.startswith(wanted)
    site.online["web_port"] = site.ports[0]
    assert refused(site, capsys)[1].startswith(f"web_port and workers.address both want port {site.ports[0]}")


def test_a_reference_that_does_not_fit_is_named(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with uproot.recreate(site.folder / "good.root") as file:
        file["sum"] = hist.Hist(hist.axis.Regular(20, 0, 1, label="x"))
    site.online["references"] = [{"file": "good.root"}]
    code, said = refused(site, capsys)
    assert code == Exit.SETTINGS
    assert "good.root does not fit the plot sum" in said


def test_a_folder_that_cannot_be_written_is_named(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (site.folder / "logs").write_text("a file")
    code, said = refused(site, capsys)
    assert code == Exit.SETTINGS
    assert said == f"the folder {site.folder}/logs cannot be made: File exists"


def test_a_database_that_gives_no_database_is_named(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "database").mkdir()
    with EmbeddedServer(tmp_path / "database") as server:
        (site.folder / "orchestrator.yaml").write_text(
            f"url: {server.url}\nembedded: never\ncredentials: {server.credentials_file}\n"
        )
        site.online["store"] = {"kind": "couch"}
        assert site.call("check") == 0
        capsys.readouterr()
        own = site.folder / "nobody.json"
        own.write_text(json.dumps({"username": "nobody", "password": "x" * 20}))
        own.chmod(0o600)
        os.environ.pop("ORCHESTRATOR_COUCH_USER", None)
        (site.folder / "orchestrator.yaml").write_text(f"url: {server.url}\nembedded: never\ncredentials: {own}\n")
        code, _ = refused(site, capsys)
        assert code == Exit.UNAUTHORISED


def test_stop_and_status_where_nothing_runs(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.call("stop") == 0
    assert "does not run" in capsys.readouterr().out
    assert site.call("status") == 1
    assert "does not run" in capsys.readouterr().out
