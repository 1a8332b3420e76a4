"""What runs steps: the chain without its file's reader, and a Python with nothing but the standard library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import orchestrator
from orchestrator import chain as chains
from orchestrator import lines
from orchestrator.executors import memory
from orchestrator.jobchain import JobChain
from orchestrator.newsite import examples

CODE = Path(orchestrator.__file__).parent.parent


@pytest.mark.parametrize("name", sorted(examples()))
def test_it_says_of_each_step_what_the_chain_says(name: str) -> None:
    chain = chains.load(examples()[name])
    read = JobChain(chain.data())
    assert read.fingerprint() == chain.fingerprint() and read.data() == chain.data()
    for step in chain.steps:
        for word in (step.name, step.key):
            found = read.step(word)
            for field in ("key", "name", "run", "command", "settings", "time_limit", "memory_limit", "version"):
                assert getattr(found, field) == getattr(step, field)


@pytest.mark.parametrize("module", ["orchestrator.job", "orchestrator.worker", "procs.noop"])
def test_a_farm_needs_nothing_but_python(module: str) -> None:
    """Neither site-packages nor anything that is imported by the way."""
    words = f"import sys; sys.path.append({str(CODE)!r}); import {module}; print('|'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    tops = {name.partition(".")[0] for name in done.stdout.strip().split("|")}
    assert tops - set(sys.stdlib_module_names) - {"__main__"} <= {"orchestrator", "procs"} | {
        name for name in tops if name.startswith("_")
    }


def test_lines_without_the_quick_library(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"a": [1, 2.5, "ü\udcff"], "b": None, "c": 2**70}
    quick = lines.line_of(value)
    monkeypatch.setattr(lines, "_quick", None)
    plain = lines.line_of(value)
    assert plain.endswith(b"\n") and plain.count(b"\n") == 1
    assert lines.value_of(plain) == lines.value_of(quick) == value
    with pytest.raises(TypeError):
        lines.line_of({"a": object()})
    with pytest.raises(ValueError):
        lines.value_of(b'{"a"')


def test_memory_without_the_library_is_that_of_the_family() -> None:
    hold = "import subprocess, sys; held = bytearray(60_000_000); print(flush=True); {}; sys.stdin.read()"
    child = hold.format("pass")
    with subprocess.Popen(
        [sys.executable, "-c", hold.format(f"subprocess.Popen([sys.executable, '-c', {child!r}]).wait()")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as family:  # fmt: skip
        assert family.stdin is not None and family.stdout is not None
        family.stdout.readline()
        family.stdout.readline()
        assert memory.by_proc(family.pid) > 120_000_000
        assert memory.by_proc(family.pid) == pytest.approx(memory.resident(family.pid), rel=0.05)
        family.stdin.close()
    assert memory.by_proc(family.pid) == 0
    assert memory.by_proc(os.getpid()) > 1e6
