"""What the engine's tests share."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from memory import Memory

from orchestrator import chain as chains
from orchestrator.documents import Claimant
from orchestrator.engine.engine import Engine

CHAIN = chains.loads("""
name: three
steps:
  - {name: a, run: "x:y", retries: {count: 1, wait: 10 s}}
  - {name: b, run: "x:y"}
  - {name: c, run: "x:y"}
""")


@pytest.fixture
def chain() -> chains.Chain:
    return CHAIN


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def make_engine(memory: Memory) -> Callable[..., Engine]:
    counter = itertools.count(1)

    def make(poller: str = "p1") -> Engine:
        claimant = Claimant(poller, "host", 1, "here")
        return Engine(CHAIN, CHAIN.steps, claimant, memory, lambda: f"t{next(counter)}", Random(1))

    return make
