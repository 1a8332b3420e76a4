"""The control room's pages and their JSON: what they say, what they refuse, and that nothing of the data is markup."""

import html.parser
import json
from pathlib import Path
from typing import Any

import hist
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import SettingsError
from orchestrator.online import snapshot
from orchestrator.online.configuration import loads
from orchestrator.online.plot import Plot
from orchestrator.online.presenting import Contents, Presenter
from orchestrator.online.subscribing import Message
from orchestrator.web.online import room as rooms
from orchestrator.web.online.board import Board
from orchestrator.web.online.kept import Kept
from orchestrator.web.online.sets import KNOWN, BadSet, Sets, checked

HOSTILE = "6008<img src=x onerror=alert(1)>\"'&{{7*7}}/../x"


class Tags(html.parser.HTMLParser):
    """Every tag of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def filled(room: Any) -> None:
    room.begin("6008")
    room.counts("6008", 9, 6, 1, 2, workers={"w1": "busy", "w2": "idle"})
    room.plot("6008", "hits/0", 7, keywords=("tof", "board"), description="Hits of board 0", quality="good")
    room.plot("6008", "hits/1", 8, quality="bad", verdict={"sentence": "too many"}, reference=True)
    room.plot("6008", "map", 9, two=True)
    room.wait(lambda: room.json("/healthz")["plots"] == 3, "the plots")
    room.wait(lambda: room.json("/api/status")["counts"].get("read") == 9, "the counts")


def test_the_status_says_how_the_run_stands(room: Any) -> None:
    assert room.json("/api/status")["sentence"].startswith("No run is there yet")
    filled(room)
    status = room.json("/api/status")
    assert (status["run"], status["live"], status["quality"], status["spill"]) == ("6008", True, "bad", 9)
    assert status["counts"] | {"workers": 0} == {
        "read": 9, "done": 6, "failed": 1, "pending": 2, "closed": True, "workers": 0,
    }  # fmt: skip
    assert (status["level"], status["sentence"]) == ("bad", "1 plot of 3 is bad.")
    assert [canvas["name"] for canvas in room.json("/api/list")["canvases"]] == ["Hits", "Times", "Maps"]
    assert room.json("/?format=json")["canvas"]["plots"] == ["hits/0", "hits/1"]
    health = room.get("/healthz")
    assert (health.status_code, health.json()["plots"]) == (200, 3)


def test_a_search_finds_all_words_in_name_title_description_and_keywords(room: Any) -> None:
    filled(room)
    for query, names in (
        ("tof", ["hits/0"]), ("BOARD hits", ["hits/0"]), ("hits", ["hits/0", "hits/1"]), ("nothing", []),
        ("", ["hits/0", "hits/1", "map"]),
    ):  # fmt: skip
        found = room.json(f"/api/search?q={query}")
        assert [plot["name"] for plot in found["plots"]] == names
        assert room.get(f"/search?q={query}").text.count("<img") == len(names)


def test_pages_of_runs_and_of_two_runs(room: Any) -> None:
    filled(room)
    room.begin("6009")
    room.plot("6009", "hits/0", 3)
    room.wait(lambda: room.shown("6009", "hits/0") == 3, "the second run")
    runs = room.json("/api/runs")["runs"]
    assert [(run["run"], run["live"]) for run in runs] == [("6009", True), ("6008", False)]
    one = room.json("/api/runs/6008")
    assert [plot["name"] for plot in one["plots"]] == ["hits/0", "hits/1", "map"]
    two = room.json("/api/compare?a=6008&b=6009")
    assert [plot["name"] for plot in two["plots"]] == ["hits/0"]
    assert two["only_a"] == ["hits/1", "map"]
    for path in ("/runs", "/runs/6008", "/runs/?name=6009", "/compare?a=6008&b=6009&how=over", "/search", "/"):
        answer = room.get(path)
        assert answer.status_code == 200 and "script-src 'self'" in answer.headers["content-security-policy"]


def test_pictures_of_a_plot(room: Any) -> None:
    filled(room)
    for plot in ("hits/0", "hits/1", "map"):
        png = room.get(f"/png?plot={plot}&run=6008&size=medium")
        assert png.content.startswith(b"\x89PNG") and png.headers["content-type"] == "image/png"
        svg = room.get(f"/thumbnail?plot={plot}&run=6008")
        assert svg.content.startswith(b"<svg") and svg.headers["content-type"] == "image/svg+xml"
        assert "default-src 'none'" in svg.headers["content-security-policy"]


def test_what_cannot_be_shown_is_said_in_one_shape(room: Any) -> None:
    filled(room)
    for path, status in (
        ("/png?plot=none", 404), ("/png?plot=hits/0&size=huge", 400), ("/runs/none", 404), ("/none", 404),
        ("/compare?how=under", 400), ("/?rotate=nan", 400), ("/search?q=" + "x" * 300, 400),
        ("/api/plots?" + "plots=a&" * 100, 400),
    ):  # fmt: skip
        answer = room.get(path, headers={"Accept": "application/json"})
        assert answer.status_code == status, path
        assert set(answer.json()) == {"status", "error", "reason"}


def test_nothing_of_the_data_is_markup(room: Any) -> None:
    more = {"title": HOSTILE, "description": HOSTILE, "help": HOSTILE, "keywords": (HOSTILE,), "tag": HOSTILE}
    room.begin(HOSTILE, how=HOSTILE)
    room.plot(HOSTILE, "hits/0", 3, verdict={"sentence": HOSTILE}, quality="bad", **more)
    room.wait(lambda: room.json("/healthz")["plots"] == 1, "the plot")
    name = httpx.QueryParams({"name": HOSTILE, "run": HOSTILE, "a": HOSTILE, "b": HOSTILE, "q": HOSTILE})
    for path in ("/", "/search", "/runs", f"/runs/?{name}", f"/compare?{name}", f"/?{name}", f"/search?{name}"):
        answer = room.get(path)
        assert answer.status_code == 200, path
        tags = Tags(answer.text).found
        assert all((attributes.get("src") or "") != "x" and "onerror" not in attributes for _, attributes in tags), path
        assert "{{7*7}}" in answer.text or "7*7" not in answer.text
        assert "49/../x" not in answer.text


def test_another_name_in_the_request_is_refused(room: Any) -> None:
    assert room.get("/", headers={"Host": "evil.example"}).status_code == 421


# ---- how things stand, in words


def told(messages: list[Message], now: float = 100.0, connected: bool = True) -> dict[str, Any]:
    board = Board()
    for message in messages:
        board.take(message, 0.0)
    configuration = loads("input: {module: 'x:Y'}\nend_of_run: 60\n")
    return rooms.Room(configuration, board, lambda: now, lambda: connected).status("")


def message(kind: str, **header: Any) -> Message:
    return Message(kind, "7", "a" if kind == "plot" else "", header, b"{}")


@pytest.mark.parametrize(
    ("messages", "now", "connected", "level", "words"),
    [
        ([], 1.0, True, "wait", "No run is there yet"),
        ([], 1.0, False, "bad", "The broadcast is away"),
        ([message("run", state="begun")], 1.0, True, "wait", "has begun, and its first plots"),
        ([message("plot")], 1.0, True, "good", "Data are flowing"),
        ([message("plot")], 100.0, True, "warning", "No spill has come since then"),
        ([message("plot")], 100.0, False, "bad", "What is shown is from before"),
        ([message("plot", quality="warning")], 1.0, True, "warning", "1 plot of 1 should be looked at"),
        ([message("plot"), message("run", state="ended", how="trailer")], 100.0, True, "wait", "ended (trailer)"),
        ([message("plot"), message("counts", store_away="no answer")], 1.0, True, "bad", "is away: no answer"),
        ([message("counts", waits_for="waiting for a worker")], 1.0, True, "warning", "waiting for a worker"),
        ([message("plot"), message("counts", trouble="x cannot begin")], 1.0, True, "bad", "be: x cannot begin."),
        ([message("plot"), message("run", state="final", trouble="x has failed")], 1.0, True, "bad", "x has failed"),
        ([message("plot"), message("counts", read=3, done=1, failed=1, pending=0)], 1.0, True, "bad", "do not close"),
    ],
)
def test_it_is_said_what_one_sees_and_what_to_do(
    messages: list[Message], now: float, connected: bool, level: str, words: str
) -> None:
    status = told(messages, now, connected)
    assert (status["level"], words in status["sentence"]) == (level, True), status["sentence"]
    assert status["remedy"] or level in ("good", "wait")


def test_spills_that_wait_while_no_plot_comes_are_another_trouble_than_no_spills() -> None:
    board = Board()
    board.take(message("plot"), 0.0)
    board.take(message("counts", read=9, done=2, failed=0, pending=7), 98.0)
    configuration = loads("input: {module: 'x:Y'}\n")
    status = rooms.Room(configuration, board, lambda: 100.0, lambda: True).status("")
    assert "Spills wait and are not worked on" in status["sentence"]


def test_without_canvases_in_the_configuration_each_reducer_has_one_and_one_with_many_plots_several() -> None:
    board = Board()
    many = [(f"c/{part}/{number}", "times") for part in "xy" for number in range(6)]
    for name, reducer in [("a/1", "tdc"), ("b/1", "size"), ("a/2", "tdc"), *many]:
        board.take(Message("plot", "7", name, {"reducer": reducer}, b"{}"), 0.0)
    listing = rooms.Room(loads("input: {module: 'x:Y'}\n"), board, lambda: 1.0, lambda: True).listing("")
    assert [(c["name"], len(c["plots"])) for c in listing["canvases"]] == [
        ("size", 1), ("tdc", 2), ("c/x", 6), ("c/y", 6),
    ]  # fmt: skip


# ---- sets


def test_a_set_is_saved_replaced_and_removed(room: Any) -> None:
    body = {"name": "Night  shift", "group": "shifter", "query": "?show=c%3AHits&rotate=20&evil=1"}
    assert room.get("/api/sets").json() == {"sets": []}
    made = httpx.post(room.url + "/api/sets", json=body)
    assert (made.status_code, made.json()["name"]) == (201, "Night shift")
    assert room.get("/api/sets").json()["sets"] == [
        {"name": "Night shift", "group": "shifter", "query": "show=c%3AHits&rotate=20"}
    ]
    httpx.post(room.url + "/api/sets", json=body | {"name": "Night shift", "group": "expert"})
    kept = json.loads((room.folder / "sets.json").read_text())
    assert [one["group"] for one in kept] == ["expert"]
    gone = httpx.request("DELETE", room.url + "/api/sets", json={"name": "Night shift"})
    assert (gone.status_code, room.get("/api/sets").json()) == (200, {"sets": []})
    assert httpx.request("DELETE", room.url + "/api/sets", json={"name": "Night shift"}).status_code == 404


def test_a_set_that_another_page_sends_or_that_is_none_is_refused(room: Any) -> None:
    ours = {"Content-Type": "application/json"}
    for body, headers in (
        (b"{}", {"Content-Type": "text/plain"}), (b"{}", ours | {"Sec-Fetch-Site": "cross-site"}), (b"{", ours),
        (b'{"name":"a","group":"boss","query":""}', ours), (b'{"name":"<a>","group":"expert","query":""}', ours),
        (b'"' + b"x" * 30_000 + b'"', ours),
    ):  # fmt: skip
        answer = httpx.post(room.url + "/api/sets", content=body, headers=headers | {"Accept": "application/json"})
        assert (answer.status_code, answer.json()["error"]) == (400, "bad query"), body[:40]
        assert not (room.folder / "sets.json").exists()


JSON = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=4)


@given(st.fixed_dictionaries({"name": JSON, "group": st.sampled_from(["shifter", "expert"]), "query": JSON}) | JSON)
def test_whatever_is_sent_a_set_is_a_short_name_and_a_query_of_ours(data: Any) -> None:
    try:
        made = checked(data)
    except BadSet as error:
        assert str(error)
        return
    assert checked(made) == made
    assert 1 <= len(made["name"]) <= 60 and not set(made["name"]) & set("<>&\"'`/\\")
    assert all(part.split("=")[0] in KNOWN for part in made["query"].split("&") if part)


def test_a_damaged_file_of_sets_is_named_and_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "sets.json"
    path.write_text("[{}]")
    with pytest.raises(SettingsError, match=r"sets\.json cannot be read"):
        Sets(path).save({"name": "a", "group": "expert", "query": ""})
    assert path.read_text() == "[{}]"


# ---- runs that are over


def presented(run: str, names: list[str]) -> list[Any]:
    """Plots as a reducer publishes them at a run's end."""
    histogram = hist.Hist(hist.axis.Regular(10, 0, 1))
    histogram.fill([0.1, 0.5, 0.5])
    presenter = Presenter("tdc", "", lambda plot: None, lambda: 1_700_000_000.0)
    return presenter.present([Plot(name, "Hits", histogram, help="flat") for name in names], Contents(run, 3, 3),
                             final=True)  # fmt: skip


def test_a_snapshot_that_was_read_before_it_was_whole_is_read_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    snapshot.write(tmp_path, "5990", "tdc", presented("5990", ["a"]), {})
    kept.load("5990")
    assert set(kept.held("5990") or ()) == {"a"}
    snapshot.write(tmp_path, "5990", "size", presented("5990", ["b"]), {})
    snapshot.unite(tmp_path, "5990", ["tdc", "size"], {})
    kept.load("5990")
    whole = kept.held("5990")
    assert set(whole or ()) == {"a", "b"}
    kept.load("5990")
    assert kept.held("5990") is whole  # and from then on not again


def test_an_old_run_is_shown_from_its_snapshot_as_it_was_published(room: Any) -> None:
    shown = presented("5990", ["hits/0"])
    snapshot.write(room.folder / "runs", "5990", "tdc", shown, {})
    record = {"begun": "2026-01-01T00:00:00Z", "ended": "2026-01-01T01:00:00Z", "spills": 3, "done": 3, "failed": 0}
    snapshot.unite(room.folder / "runs", "5990", ["tdc"], record)
    assert [run["run"] for run in room.json("/api/runs")["runs"]] == ["5990"]
    (plot,) = room.json("/api/plots?run=5990&plots=hits/0")
    assert plot["object"] == json.loads(shown[0].body)
    assert (plot["header"]["final"], plot["header"]["entries"]) == (True, 3)
    status = room.json("/api/status?run=5990")
    assert (status["kept"], status["state"]) == (True, "final")
    assert room.get("/png?run=5990&plot=hits/0").content.startswith(b"\x89PNG")
    assert "Hits" in room.get("/runs/5990").text
    for name in ("../5990", "..", "5990/../5990", "."):
        assert room.get(f"/runs/?name={name}").status_code == 404
