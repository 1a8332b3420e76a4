"""The broadcast: the current picture at once, nothing that waits for a viewer, and healing by itself."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import Conflict, SettingsError
from orchestrator.online import broadcast
from orchestrator.online.broadcast import Broker
from orchestrator.online.cache import MEMORY, PART, Cache
from orchestrator.online.publication import parsed, topic
from orchestrator.online.publishing import Publisher
from orchestrator.online.subscribing import Message, Subscriber, about


@contextlib.contextmanager
def broker(publish: str = "tcp://127.0.0.1:*", subscribe: str = "tcp://127.0.0.1:*") -> Iterator[Broker]:
    context = zmq.Context()
    made = Broker(publish, subscribe, context=context)
    stop = threading.Event()
    thread = threading.Thread(target=made.run, args=(stop,))
    made.at = made.addresses  # type: ignore[attr-defined]
    thread.start()
    try:
        yield made
    finally:
        stop.set()
        thread.join()
        context.term()


Condition = Callable[[dict[str, Message]], bool]


def gather(subscriber: Subscriber, until: Condition, patience: float = 20.0) -> list[Message]:
    """Everything until the newest of each name satisfies."""
    found: list[Message] = []
    newest: dict[str, Message] = {}
    end = time.monotonic() + patience
    while not until(newest):
        assert time.monotonic() < end, f"only {len(found)} messages came"
        for message in subscriber.receive(0.1):
            found.append(message)
            newest[message.name] = message
    return found


def shows(**values: int) -> Condition:
    return lambda newest: all(name in newest and newest[name].header["n"] == n for name, n in values.items())


def test_what_is_published_arrives_with_its_header_and_body() -> None:
    with broker() as one, Publisher(one.at[0]) as publisher, Subscriber(one.at[1]) as subscriber:
        publisher.publish("plot", "a/b 7", "tdc/hits", {"n": 1}, b"\x00body")
        (message,) = gather(subscriber, shows(**{"tdc/hits": 1}))
        assert message == Message("plot", "a/b 7", "tdc/hits", {"n": 1}, b"\x00body")
        assert publisher.last("plot", "a/b 7", "tdc/hits") == {"n": 1}


def test_a_late_joiner_has_all_plots_at_once_and_nobody_else_gets_them_again() -> None:
    many = 3 * PART + 5
    with broker() as one, Publisher(one.at[0]) as publisher, Subscriber(one.at[1]) as early:
        for number in range(many):
            publisher.publish("plot", "1", f"p{number}", {"n": 0}, bytes(1000))
        publisher.publish("plot", "1", "p0", {"n": 1})
        gather(early, lambda newest: len(newest) == many and newest["p0"].header["n"] == 1)
        with Subscriber(one.at[1]) as late:
            found = gather(late, lambda newest: len(newest) == many)
            assert len(found) == many and {one.name: one.header["n"] for one in found}["p0"] == 1
            assert late.complete
        assert early.receive(0.3) == []


def test_a_broker_that_is_started_again_is_filled_and_its_viewers_go_on() -> None:
    with broker() as one:
        at = one.at
        publisher, subscriber = Publisher(at[0]), Subscriber(at[1])
        publisher.publish("plot", "1", "x", {"n": 1})
        publisher.publish("plot", "1", "y", {"n": 1})
        gather(subscriber, shows(x=1, y=1))
    publisher.publish("plot", "1", "x", {"n": 2})  # while it is away
    with broker(*at), publisher, subscriber:
        gather(subscriber, shows(x=2))
        publisher.publish("plot", "1", "x", {"n": 3})
        gather(subscriber, shows(x=3))
        with Subscriber(at[1]) as late:
            gather(late, shows(x=3, y=1))


def test_a_publisher_that_comes_first_or_again_is_heard() -> None:
    with broker() as one, Subscriber(one.at[1]) as subscriber:
        with Publisher(one.at[0]) as publisher:
            publisher.publish("counts", "1", "", {"n": 1})
        gather(subscriber, lambda newest: bool(newest))
        with Publisher(one.at[0]) as publisher:
            publisher.publish("counts", "1", "", {"n": 2})
            assert gather(subscriber, lambda newest: bool(newest))[-1].header == {"n": 2}


def test_a_viewer_that_does_not_read_slows_nobody_and_has_the_newest_when_it_reads_again() -> None:
    body = bytes(20_000)
    rounds = 5 * broadcast.QUEUED
    with (
        broker() as one,
        Publisher(one.at[0]) as publisher,
        Subscriber(one.at[1]) as quick,
        Subscriber(one.at[1]) as slow,
    ):
        publisher.publish("plot", "1", "ready", {"n": 0})
        gather(slow, shows(ready=0))
        for number in range(1, rounds + 1):
            publisher.publish("plot", "1", f"p{number % 7}", {"n": number}, body)
            gather(quick, shows(**{f"p{number % 7}": number}))
        assert publisher.connected
        last = {f"p{number % 7}": number for number in range(rounds - 6, rounds + 1)}
        found = gather(slow, shows(**last))
        assert len(found) < rounds, "it was to lose some: publish more"
        by_name: dict[str, int] = {}
        for message in found:
            assert by_name.get(message.name, -1) < message.header["n"]
            by_name[message.name] = message.header["n"]


def test_what_is_lost_without_a_message_after_it_is_asked_for_at_the_next_beat() -> None:
    with broker() as one, Publisher(one.at[0]) as publisher, Subscriber(one.at[1]) as subscriber:
        publisher.publish("plot", "1", "x", {"n": 1})
        gather(subscriber, shows(x=1))
        take = subscriber._take
        subscriber._take = lambda parts: None if parts[0].startswith(b"plot") else take(parts)  # type: ignore[method-assign]
        publisher.publish("plot", "1", "x", {"n": 2})
        gather(subscriber, shows(x=2))


def test_an_address_that_is_taken_or_none_is_one_sentence() -> None:
    with broker() as one:
        with pytest.raises(Conflict, match="is taken by another program"):
            Broker(one.at[0], "tcp://127.0.0.1:*")
        with pytest.raises(SettingsError, match="cannot listen at"):
            Broker("nonsense", "tcp://127.0.0.1:*")
    with pytest.raises(SettingsError, match="is none"):
        Publisher("nonsense")


topics = st.builds(topic, st.just("plot"), st.sampled_from(["1", "2", "3", "4", "5"]), st.sampled_from("abc"))


@given(st.lists(topics), st.integers(1, 4), st.integers(0, 40))
def test_the_cache_keeps_the_last_of_each_topic_of_the_last_runs(sent: list[bytes], most: int, first: int) -> None:
    cache = Cache(runs=2)
    for number, one in enumerate(sent, 1):
        assert cache.take(one, b"", b"%d" % number) == number
    runs = list(dict.fromkeys(parsed(one)[1] for one in reversed(sent)))[:2]
    last = {one: number for number, one in enumerate(sent, 1)}
    found: dict[bytes, int] = {}
    reached = first
    while reached < cache.number:
        part, after = cache.since(reached, cache.number, most=most)
        assert after > reached and len(part) <= most
        reached = after
        found |= {one.topic: one.number for one in part}
    kept = {one: number for one, number in last.items() if parsed(one)[1] in runs and number > first}
    # A run that was forgotten in between and came back lacks what it had before.
    assert found.items() <= last.items()
    assert set(found) <= set(kept)
    if len({parsed(one)[1] for one in sent}) <= 2:
        assert found == kept


@given(st.lists(st.tuples(topics, st.integers(0, 60))))
def test_the_cache_stays_within_its_memory_and_keeps_the_newest(sent: list[tuple[bytes, int]]) -> None:
    cache = Cache(memory=100)
    for one, size in sent:
        cache.take(topic("counts", parsed(one)[1]), b"1", b"")
        cache.take(one, b"", bytes(size))
        held, _ = cache.since(0, cache.number, most=1000)
        assert cache.size == sum(len(kept.body) + len(kept.header) for kept in held) <= 100
        assert held[-1].topic == one and held[-2].topic == topic("counts", parsed(one)[1])
        about = cache.about()
        assert (about["topics"], about["bytes"], about["most"]) == (len(held), cache.size, 100)
        assert about["runs"] == len({parsed(kept.topic)[1] for kept in held})


def test_a_run_that_is_too_large_loses_the_plots_that_did_not_change_for_longest() -> None:
    cache = Cache(memory=100)
    for name in ("a", "b", "c", "a", "d"):
        cache.take(topic("plot", "1", name), b"", bytes(30))
    held, _ = cache.since(0, cache.number)
    assert [parsed(one.topic)[2] for one in held] == ["c", "a", "d"] and cache.about()["dropped"] == 1


def test_whoever_looks_after_it_learns_how_much_is_kept() -> None:
    with broker() as one, Publisher(one.at[0]) as publisher:
        there = one.at[1]
        publisher.publish("plot", "1", "a", {"x": 1}, bytes(1000))
        end = time.monotonic() + 20
        while not (found := about(there)) or not found["topics"]:
            assert time.monotonic() < end
    assert found | {"bytes": 0} == {"runs": 1, "topics": 1, "bytes": 0, "most": MEMORY, "dropped": 0}
    assert 1000 < found["bytes"] < 1100
    assert about(there, timeout=0.1) is None


@given(st.text(min_size=1), st.text(alphabet="abc/._-"))
def test_a_topic_is_read_as_it_was_made(run: str, name: str) -> None:
    if "\ud800" <= max(run) <= "\udfff":
        return
    assert parsed(topic("plot", run, name)) == ("plot", run, name)


def test_a_topic_that_is_none_is_refused() -> None:
    for wrong in (b"", b"plot", b"plot/", b"\x00x/1", b"other/1/x"):
        with pytest.raises(ValueError, match="is no topic"):
            Cache().take(wrong, b"", b"")


@pytest.mark.parametrize("header", [b"", b"no JSON", b"[1]", b"\xff"])
def test_a_header_that_is_none_is_left_out_and_all_others_come(header: bytes) -> None:
    with broker() as one, Publisher(one.at[0]) as publisher:
        publisher.send(b"plot/1/odd", header, b"")
        publisher.publish("plot", "1", "good", {"n": 1})
        with Subscriber(one.at[1]) as subscriber:
            assert [message.name for message in gather(subscriber, shows(good=1))] == ["good"]
