"""The tables of the guard: nothing of the transitions is lost on the way into them."""

from __future__ import annotations

from orchestrator import chain as chains
from orchestrator import roles
from orchestrator.transitions import TRANSITIONS


def test_every_transition_is_in_the_guard_s_table() -> None:
    rows = [row for row in roles.moves().split("|") if row]
    table = {row.rpartition(":")[0] + ":" + row.rpartition(":")[2].split()[0]: row.split()[-1] for row in rows}
    assert len(table) == len(rows), "one row for each pair and each kind of writer"
    assert {transition.by for transition in TRANSITIONS} <= {"registrar", "poller", "person"}
    for transition in TRANSITIONS:
        who = "person" if transition.by == "person" else "site"
        for before in transition.before:
            row = next(row for row in rows if row.startswith(f"{before.value}>{transition.after.value}:{who} "))
            assert transition.step in row.rpartition(":")[2].split()
    assert sum(len(row.rpartition(":")[2].split()) - 1 for row in rows) <= sum(len(t.before) for t in TRANSITIONS)


def test_members_are_our_roles_and_those_of_the_sites() -> None:
    found = roles.member_roles(["lyon", "here"])
    assert {"_admin", "admin", "operator", "viewer", "replicator", "site:here", "site:lyon"} == set(found)


def test_the_site_of_each_step_stands_under_its_number() -> None:
    chain = chains.loads("name: t\nsites: {a: {}, b: {}}\nsteps:\n- {name: x, run: 'x:y', site: b}\n"
                         "- {name: y, run: 'x:y', site: a}")  # fmt: skip
    assert roles.sites_of(chain) == ["b", "a"]
