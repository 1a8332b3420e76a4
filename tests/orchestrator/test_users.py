"""Accounts: made, changed and mended on a real server; a daemon's login survives whatever got lost."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import chain as chains
from orchestrator import users
from orchestrator.children import prepare
from orchestrator.connect import server as connect
from orchestrator.couch import Credentials, Server
from orchestrator.embedded.security import write_credentials
from orchestrator.embedded.testing import EmbeddedServer
from orchestrator.errors import Conflict, NotFound, SettingsError, Unauthorised
from orchestrator.pushing import push
from orchestrator.settings import Settings
from orchestrator.users import Account, Users, file_of, name_of, setup

CHAIN = chains.loads("name: t\nsteps: [{name: a, run: 'x:y'}]")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(running: EmbeddedServer) -> Server:
    return Server(running.url, Credentials(*running.credentials))


@pytest.fixture
def site(running: EmbeddedServer, tmp_path: Path) -> Settings:
    """The settings of a site with a database, and so accounts, of its own."""
    name = f"d{abs(hash(str(tmp_path)))}"
    return Settings.load(tmp_path, overrides={"url": running.url, "database": name})


def roles_at_login(site: Settings, daemon: str) -> Any:
    return connect(site, {}, daemon=daemon).session()["userCtx"]["roles"]


def test_an_account_from_its_making_to_its_end(server: Server, running: EmbeddedServer) -> None:
    found = Users(server)
    found.add("ann", "a long password", ["operator"])
    assert Account("ann", ("operator",)) in found.all()
    with pytest.raises(Conflict, match="'ann' already"):
        found.add("ann", "another password", [])
    own = Server(running.url, Credentials("ann", "a long password"))
    assert own.session()["userCtx"]["roles"] == ["operator"]
    found.set_roles("ann", ["viewer", "operator"])
    found.set_password("ann", "her own password")
    fresh = Server(running.url, Credentials("ann", "her own password"))
    assert fresh.session()["userCtx"]["roles"] == ["viewer", "operator"]
    with pytest.raises(Unauthorised):
        Server(running.url, Credentials("ann", "a long password")).session()
    for attempt in (lambda: Users(fresh).add("bob", "a long password", ["admin"]), lambda: Users(fresh).all()):
        with pytest.raises(Unauthorised):
            attempt()
    found.remove("ann")
    assert found.find(["ann"]) == {"ann": None}
    for change in (
        found.remove,
        lambda name: found.set_roles(name, []),
        lambda name: found.set_password(name, "x" * 9),
    ):
        with pytest.raises(NotFound, match="no account 'ann'"):
            change("ann")


@pytest.mark.parametrize("name", ["", "_admin", "a:b", " a", "a\n", "a\x00"])
def test_names_that_no_account_can_have(name: str) -> None:
    with pytest.raises(SettingsError, match="cannot be an account's name"):
        users.check_name(name)


def test_roles_are_checked_against_the_chain() -> None:
    assert users.check_roles(["operator", "site:here", "operator"], ["here"]) == ("operator", "site:here")
    with pytest.raises(SettingsError, match="did you mean 'operator'"):
        users.check_roles(["operater"], ["here"])
    with pytest.raises(SettingsError, match="site:lion"):
        users.check_roles(["site:lion"], ["here"])
    with pytest.raises(SettingsError):
        users.check_roles(["_admin"], ["here"])


def test_a_short_password_is_refused_without_being_repeated() -> None:
    with pytest.raises(SettingsError) as error:
        users.check_password("secret")
    assert "secret" not in str(error.value)


def test_each_daemon_gets_an_account_with_its_roles_and_a_file_of_its_own(server: Server, site: Settings) -> None:
    push(server, site, CHAIN)
    made = {one.daemon: one for one in setup(server, site, CHAIN)}
    assert set(made) == {"registrar", "poller", "web", "replicator"}, "there is no farm in this chain"
    assert {one.what for one in made.values()} == {"made"}
    for daemon, one in made.items():
        assert stat.S_IMODE(one.file.stat().st_mode) == 0o600
        assert json.loads(one.file.read_text())["username"] == one.name == name_of(daemon, site)
    assert stat.S_IMODE(site.accounts.stat().st_mode) == 0o700
    assert roles_at_login(site, "poller") == roles_at_login(site, "registrar") == ["site:here"]
    assert roles_at_login(site, "web") == ["viewer"] and roles_at_login(site, "replicator") == ["replicator"]
    before = {path: path.read_text() for path in site.accounts.iterdir()}
    assert {one.what for one in setup(server, site, CHAIN)} == {"kept"}
    assert {path: path.read_text() for path in site.accounts.iterdir()} == before


def state(made: list[users.Made], daemon: str) -> str:
    return next(one.what for one in made if one.daemon == daemon)


def test_what_got_lost_comes_back(server: Server, site: Settings) -> None:
    setup(server, site, CHAIN)
    poller = file_of("poller", site)
    kept = poller.read_text()
    Users(server).remove(name_of("poller", site))  # a database that was made anew
    assert state(setup(server, site, CHAIN), "poller") == "made"
    assert poller.read_text() == kept and roles_at_login(site, "poller") == ["site:here"]
    poller.unlink()
    assert state(setup(server, site, CHAIN), "poller") == "mended"
    assert poller.read_text() != kept and roles_at_login(site, "poller") == ["site:here"]
    Users(server).set_roles(name_of("poller", site), ["admin"])
    assert state(setup(server, site, CHAIN), "poller") == "mended"
    assert roles_at_login(site, "poller") == ["site:here"]


def test_a_setup_that_was_interrupted_is_made_good(server: Server, site: Settings) -> None:
    """The new login is on disk before the database knows it: after a crash on either side it is taken up again."""
    setup(server, site, CHAIN)
    poller = file_of("poller", site)
    for told in (False, True):
        password = users.new_password()
        fresh = poller.with_name("poller.json.new")
        write_credentials(fresh, {"username": name_of("poller", site), "password": password})
        if told:
            Users(server).set_password(name_of("poller", site), password)
        assert state(setup(server, site, CHAIN), "poller") == "mended"
        assert json.loads(poller.read_text())["password"] == password and not fresh.exists()
        assert roles_at_login(site, "poller") == ["site:here"]


def test_passwords_are_renewed_on_demand(server: Server, site: Settings) -> None:
    setup(server, site, CHAIN)
    before = file_of("web", site).read_text()
    assert {one.what for one in setup(server, site, CHAIN, renew=True)} == {"mended"}
    assert file_of("web", site).read_text() != before and roles_at_login(site, "web") == ["viewer"]


def test_a_login_that_a_person_put_there_is_left_alone(server: Server, site: Settings) -> None:
    site.accounts.mkdir()
    write_credentials(file_of("poller", site), {"username": "ours", "password": "of another kind"})
    assert state(setup(server, site, CHAIN), "poller") == "foreign"
    assert json.loads(file_of("poller", site).read_text())["username"] == "ours"


def test_only_the_server_s_admin_makes_accounts(server: Server, site: Settings) -> None:
    setup(server, site, CHAIN)
    with pytest.raises(Unauthorised):
        setup(connect(site, {}, daemon="poller"), site, CHAIN, renew=True)


def test_up_makes_the_accounts_of_its_own_database_unless_a_login_is_in_the_environment(
    running: EmbeddedServer, site: Settings
) -> None:
    write_credentials(site.credentials, running.credentials._asdict())
    prepare(site, CHAIN, {})
    assert not site.accounts.exists(), "a CouchDB of others is theirs to set up"
    login = {
        "ORCHESTRATOR_COUCH_USER": running.credentials.username,
        "ORCHESTRATOR_COUCH_PASSWORD": running.credentials.password,
    }
    prepare(site, CHAIN, login, accounts=True)
    assert not site.accounts.exists()
    prepare(site, CHAIN, {}, accounts=True)
    assert roles_at_login(site, "poller") == ["site:here"]
    assert connect(site, login, daemon="poller").session()["userCtx"]["roles"] == ["_admin"]
