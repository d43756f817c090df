"""Two vector spaces never mix under one model, whatever is halted, cancelled, lost or changed.

The state machine plays operators who change endpoint, model and key, runs that end in each way, and
work that ends late, on the real ledger; its logs and endpoints are simple ones of its own. It runs
on fakeredis and on a real server.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from enrich.embedding.space_guard import MOST_COMPARED, Sample, Space, SpaceGuard, in_turn
from enrich.enrichment.comparing import _Memory as RememberedSpaces
from enrich.errors import Halt, TransientError
from enrich.ledger import Ledger, Scan
from enrich.ledger.deployment import Configuration
from enrich.ledger.in_memory import in_memory_ledger
from enrich.settings import load_settings
from enrich.vectors import Vector

PREFIXES = (f"g{n}:" for n in itertools.count())
HARD = 3600.0

#: Which space an endpoint has for a model: the first two are the same, and the third is another.
TRUTH = {"u1": "v", "u2": "v", "u3": "w"}


def vector(space: str, text: str) -> Vector:
    seed = sum(map(ord, space + text))
    return np.random.default_rng(seed).standard_normal(8).astype(np.float32)


def sample(project: str, text: str, space: str = "v") -> Sample:
    return Sample(project=project, fingerprint=text, text=text, vector=vector(space, text))


class Told:
    """What is in the logs, what is known of it, and what the guard did."""

    def __init__(self, samples: Sequence[Sample] = (), vouched: Sequence[Sample] = ()) -> None:
        self.samples = list(samples)
        self.known_to_be = list(vouched)
        self.counted: tuple[int, bool] | None = None
        self.others = False
        self.remembered: Space | None = None
        self.sentences: list[str] = []
        self.asked: list[set[str]] = []
        self.vouched_by = ""

    def vouched(self, url: str) -> Sequence[Sample]:
        self.vouched_by = url
        return self.known_to_be

    def some(self) -> Sequence[Sample]:
        return self.samples

    def count(self) -> tuple[int, bool]:
        return self.counted or (len(self.samples), True)

    def compared_space(self, model: str, dimensions: int) -> Space | None:
        return self.remembered

    def remember_space(self, space: Space) -> None:
        self.remembered = space

    def work_of_others(self) -> bool:
        return self.others

    def look(self, url: str = "u1", where: str = "here", refuses: Sequence[str] = ()) -> None:
        space = Space(url=url, model="m", dimensions=8, where=where)

        def ask(texts: Mapping[str, str]) -> Mapping[str, Vector]:
            self.asked.append(set(texts))
            return {d: vector(TRUTH[url], t) for d, t in texts.items() if t not in refuses}

        SpaceGuard(space, self, self).look(ask, self.sentences.append)


def test_a_change_of_what_is_put_before_texts_is_compared_and_named() -> None:
    told = Told([sample("a", f"t{n}", "w") for n in range(3)])
    told.remembered = remembered("u1")
    prefixed = Space(url="u1", model="m", dimensions=8, where="here", form='["passage: ", {}]')
    guard = SpaceGuard(prefixed, told, told)

    def ask(texts: Mapping[str, str]) -> Mapping[str, Vector]:
        return {digest: vector("v", text) for digest, text in texts.items()}

    with pytest.raises(
        Halt,
        match=r"^ENRICH_DOCUMENT_PREFIX, or an extra body, changed, which gives other vectors",
    ):
        guard.look(ask, told.sentences.append)
    assert told.remembered == remembered("u1")
    told.samples = [sample("a", f"t{n}") for n in range(3)]
    guard.look(ask, told.sentences.append)
    assert told.remembered == prefixed


@pytest.mark.parametrize("form", ["", '["passage: ", {}]', '["a\\nb", {"t": "\\n"}]'])
def test_what_is_put_before_texts_is_remembered_with_the_space(form: str) -> None:
    """And a worker of an older version, which knows of none, takes it for another space."""
    ledger = in_memory_ledger()
    wanted = load_settings(_env_file=None, openai_api_key="k")
    space = Space(url="u", model="m", dimensions=8, where="https://h:1 *_*", form=form)
    memory = RememberedSpaces(wanted, ledger)
    memory.remember_space(space)
    assert memory.compared_space("m", 8) == space
    known = ledger.endpoint.compared("m", 8)
    assert known is not None and (known == ("u", space.where)) is not bool(form)


def remembered(url: str, where: str = "here") -> Space:
    return Space(url=url, model="m", dimensions=8, where=where)


def test_a_first_run_needs_no_request_and_is_remembered() -> None:
    told = Told()
    told.look("u1")
    assert told.remembered == remembered("u1")
    assert (told.asked, told.sentences) == ([], [])
    told.look("u1")
    assert told.asked == []


@pytest.mark.parametrize("known", [None, remembered("u1"), remembered("u3", "elsewhere")])
def test_vectors_that_nobody_compared_are_compared(known: Space | None) -> None:
    told = Told([sample("a", f"t{n}") for n in range(3)])
    told.remembered = known
    with pytest.raises(Halt, match=r"gives other vectors for the same text \(3 of 3"):
        told.look("u3")
    assert told.remembered == known, "nothing is remembered of what was refused"
    told.look("u2")
    assert told.remembered == remembered("u2")
    assert told.sentences[-2:] == [
        "3 stored vectors of m are compared with what u2 gives for their texts now",
        "3 of 3 stored vectors are the same from u2 now",
    ]


def test_other_logs_are_other_vectors() -> None:
    told = Told([sample("a", "t", "w")])
    told.remembered = remembered("u1", "another cluster")
    with pytest.raises(Halt, match="gives other vectors"):
        told.look("u1", "here")


def test_one_planted_vector_decides_nothing_either_way() -> None:
    planted = sample("a", "p", "w")
    told = Told([planted, *(sample("a", f"t{n}") for n in range(2))])
    told.remembered = remembered("u1")
    told.look("u2")
    assert told.remembered == remembered("u2")
    with pytest.raises(Halt, match=r"\(2 of 3 that were compared\)"):
        told.look("u3")


def test_projects_have_equal_votes() -> None:
    planted = [sample("evil", f"p{n}", "w") for n in range(100)]
    told = Told([*planted, *(sample("a", f"a{n}") for n in range(3)),
                 *(sample("b", f"b{n}") for n in range(3))])  # fmt: skip
    told.remembered = remembered("u1")
    told.look("u2")
    (asked,) = told.asked
    assert len(asked) == MOST_COMPARED and sum(text.startswith("p") for text in asked) == 3


def test_a_text_of_another_project_takes_no_vote_away() -> None:
    mine, theirs = sample("a", "t"), sample("evil", "t", "w")
    assert in_turn([theirs, mine, theirs]) == [theirs, mine]


def test_half_is_no_majority() -> None:
    told = Told([sample("a", "t"), sample("b", "p", "w")])
    with pytest.raises(Halt, match=r"1 of 2"):
        told.look("u1")


def test_vectors_whose_digest_is_known_decide_alone() -> None:
    told = Told([sample("a", f"p{n}", "w") for n in range(9)], vouched=[sample("a", "t")])
    told.remembered = remembered("u1")
    told.look("u2")
    assert told.asked == [{"t"}] and told.vouched_by == "u1"
    with pytest.raises(Halt):
        told.look("u3")


def test_vouched_texts_that_are_refused_leave_it_to_the_others() -> None:
    told = Told([sample("a", "t")], vouched=[sample("a", "x")])
    told.look("u1", refuses=["x"])
    assert told.asked == [{"x"}, {"t"}] and told.remembered == remembered("u1")


@pytest.mark.parametrize("known", [None, remembered("u1")])
def test_what_cannot_be_compared_goes_nowhere(known: Space | None) -> None:
    told = Told([sample("a", "t")])
    told.remembered = known
    with pytest.raises(Halt, match="cannot be compared with the 1 vectors of m that logs have"):
        told.look("u2", refuses=["t"])
    assert told.remembered == known


def test_nothing_there_is_as_good_as_the_same() -> None:
    told = Told()
    told.remembered = remembered("u1")
    told.others = True
    with pytest.raises(TransientError, match="has ended what it is writing"):
        told.look("u3")
    told.others = False
    told.look("u3")
    assert told.remembered == remembered("u3")
    assert "no log has a vector of m" in told.sentences[-1]


def test_what_cannot_be_counted_is_not_nothing() -> None:
    told = Told()
    told.counted = (0, False)
    told.look("u1")
    assert told.remembered is None, "a first run goes on, and the next one looks again"
    told.remembered = remembered("u1")
    with pytest.raises(TransientError, match="cannot be counted in every index"):
        told.look("u3")
    assert told.remembered == remembered("u1")


# -- any order of anything


class _Logs:
    """Vectors that logs have, by model: the true space of each."""

    def __init__(self) -> None:
        self.written: dict[str, list[tuple[str, str]]] = {}
        self._numbers = itertools.count()

    def write(self, model: str, space: str) -> None:
        self.written.setdefault(model, []).append((space, f"{model} {next(self._numbers)}"))


class _Memory:
    """The guard's memory in a real ledger, as enrich/enrichment/comparing.py has it."""

    def __init__(self, ledger: Ledger, configuration: Configuration) -> None:
        self._ledger = ledger
        self._configuration = configuration

    def compared_space(self, model: str, dimensions: int) -> Space | None:
        known = self._ledger.endpoint.compared(model, dimensions)
        return known and Space(url=known[0], model=model, dimensions=dimensions, where=known[1])

    def remember_space(self, space: Space) -> None:
        self._ledger.endpoint.record_compared(space.model, space.dimensions, space.url, space.where)

    def work_of_others(self) -> bool:
        return self._ledger.chunks.leased_elsewhere(self._configuration, HARD)


class Machine(RuleBasedStateMachine):
    """Operators, runs and late work. A run is opened, looks, takes chunks, and ends anyhow."""

    connection: redis.Redis

    @initialize()
    def begin(self) -> None:
        self.ledger = Ledger(self.connection, next(PREFIXES))
        self.logs = _Logs()
        self.url, self.model = "u1", "m1"
        self.run = ""
        #: Chunks that wait, and those leased: each with the settings of its worker.
        self.waiting: list[str] = []
        self.leased: list[tuple[str, str, str]] = []
        self.numbers = itertools.count()

    def configuration(self) -> Configuration:
        return Configuration({"EMBEDDING_MODEL": self.model, "OPENAI_BASE_URL": self.url})

    # -- operators

    @rule(url=st.sampled_from(["u1", "u2", "u3", "u3"]), model=st.sampled_from(["m1", "m1", "m2"]))
    def change(self, url: str, model: str) -> None:
        self.url, self.model = url, model

    def end_by_force(self, state: str) -> None:
        self.ledger.runs.halt(self.run, "whatever it was", state)
        self.finish()

    @rule(model=st.sampled_from(["m1", "m2", "", "", ""]))
    def remove_vectors(self, model: str) -> None:
        self.logs.written.pop(model, None)

    @precondition(lambda self: not self.leased)
    @rule(really=st.sampled_from([True, False, False, False]))
    def lose_redis(self, really: bool) -> None:
        if not really:
            return
        prefix = self.ledger._keys.prefix
        for key in self.connection.scan_iter(prefix + "*", count=1000):
            self.connection.delete(key)
        self.run, self.waiting = "", []

    # -- runs

    @rule(
        url=st.sampled_from(["u1", "u2", "u3"]),
        model=st.sampled_from(["m1", "m1", "m2"]),
        fault=st.sampled_from(["", "", "", "down", "wrong key", "refused"]),
        force=st.sampled_from(["", "halted", "abandoned"]),
    )
    def open(self, url: str, model: str, fault: str, force: str) -> None:
        """With settings that may be new; a run that is still active ends by force before, or by
        and by."""
        if self.run and force:
            self.end_by_force(force)
        if self.run:
            return
        self.url, self.model = url, model
        self.run = self.ledger.runs.open("manual", 600).run
        wanted = self.ledger.runs.configure(self.run, self.configuration())
        assert not wanted.differing(self.configuration())
        guard = SpaceGuard(
            Space(url=self.url, model=self.model, dimensions=8, where="here"),
            _Memory(self.ledger, self.configuration()),
            self,
        )

        def ask(texts: Mapping[str, str]) -> Mapping[str, Vector]:
            if fault == "down":
                raise TransientError("the API is down")
            if fault == "wrong key":
                raise Halt("refused the key (401)")
            space = TRUTH[self.url] + self.model
            return {} if fault == "refused" else {d: vector(space, t) for d, t in texts.items()}

        try:
            guard.look(ask, lambda sentence: self.ledger.runs.note_comparison(self.run, sentence))
        except (Halt, TransientError) as error:
            # What passes is tried again, and at last ends the run as well.
            self.ledger.runs.halt(self.run, str(error))
            self.finish()
            return
        chunks = {f"{self.run}:1:{k}": 1 for k in range(2)}
        scan = Scan(pending=[], update_only=[], unsorted=[])
        assert self.ledger.pages.register(self.run, 1, scan=scan, scan_done=True, chunks=chunks)
        self.waiting += chunks

    @precondition(lambda self: self.waiting)
    @rule()
    def lease(self) -> None:
        """Put last where another worker has to do it."""
        chunk = self.waiting.pop(0)
        who = f"host/{next(self.numbers)}"
        lease = self.ledger.chunks.begin(chunk, who, HARD, configuration=self.configuration())
        if lease.verdict == "go":
            self.leased.append((chunk, self.url, self.model))
        elif lease.verdict == "other":
            self.waiting.append(chunk)

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        """Also long after its run has ended."""
        work = data.draw(st.sampled_from(self.leased))
        self.leased.remove(work)
        chunk, url, model = work
        self.logs.write(model, TRUTH[url] + model)
        self.ledger.chunks.settle(chunk, {"embedded": 1})
        self.finish()

    @precondition(lambda self: self.waiting)
    @rule()
    def work_through(self) -> None:
        """A healthy stretch: without it few runs would ever come to their end."""
        for _ in list(self.waiting):
            self.lease()
        while self.leased:
            chunk, url, model = self.leased.pop()
            self.logs.write(model, TRUTH[url] + model)
            self.ledger.chunks.settle(chunk, {"embedded": 1})
        self.finish()

    def finish(self) -> None:
        if self.run and self.ledger.runs.finish(self.run) != "unfinished":
            self.run = ""

    # -- the logs as the guard sees them

    def vouched(self, url: str) -> Sequence[Sample]:
        return []

    def some(self) -> Sequence[Sample]:
        return [
            Sample(project="p", fingerprint=text, text=text, vector=vector(space, text))
            for space, text in self.logs.written.get(self.model, ())
        ]

    def count(self) -> tuple[int, bool]:
        return len(self.logs.written.get(self.model, ())), True

    @invariant()
    def no_model_has_two_spaces(self) -> None:
        for model, written in getattr(self, "logs", _Logs()).written.items():
            assert len({space for space, _ in written}) <= 1, f"{model} has two spaces"


@pytest.mark.long
@pytest.mark.parametrize(
    "connection",
    [pytest.param("fakeredis", marks=pytest.mark.apart), "valkey"],
    indirect=True,
    scope="module",
)
def test_no_order_of_anything_mixes_two_spaces(connection: redis.Redis) -> None:
    machine: type[Any] = type("OnThis", (Machine,), {"connection": connection})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


# -- the ledger's part


@pytest.fixture
def ledger(connection: redis.Redis) -> Ledger:
    return Ledger(connection, next(PREFIXES))


ONE, OTHER = Configuration({"EMBEDDING_MODEL": "a"}), Configuration({"EMBEDDING_MODEL": "b"})


def opened(ledger: Ledger, chunks: int = 1) -> tuple[str, list[str]]:
    run = ledger.runs.open("manual", 600).run
    names = [f"{run}:1:{k}" for k in range(chunks)]
    scan = Scan(pending=[], update_only=[], unsorted=[])
    ledger.pages.register(run, 1, scan=scan, scan_done=True, chunks=dict.fromkeys(names, 1))
    return run, names


def test_a_run_belongs_to_the_settings_that_were_named_first(ledger: Ledger) -> None:
    run, (chunk, another) = opened(ledger, 2)
    assert ledger.runs.configured(run) == Configuration({})
    # A run that an older version opened has none: the first delivery names its own.
    assert ledger.chunks.begin(chunk, "h/1", HARD, configuration=ONE).verdict == "go"
    assert ledger.runs.configured(run) == ledger.runs.configure(run, OTHER) == ONE
    assert ledger.chunks.begin(another, "h/2", HARD, configuration=OTHER).verdict == "other"
    # Who writes nothing may lease; what another version does not know tells nobody apart.
    assert ledger.chunks.begin(another, "h/2", HARD).verdict == "go"
    newer = Configuration({**ONE.values, "ENRICH_SCHEMA": "x"})
    assert (
        ledger.chunks.begin(another, "h/3", HARD, dead="h/2", configuration=newer).verdict == "go"
    )


def test_a_run_that_is_gone_gets_no_settings(ledger: Ledger, connection: redis.Redis) -> None:
    assert ledger.runs.configure("nosuchrun", ONE) == ONE
    assert not connection.exists(f"{ledger._keys.prefix}run:nosuchrun")


def test_work_of_others_is_seen_until_it_ends(ledger: Ledger) -> None:
    run, (chunk,) = opened(ledger)
    ledger.chunks.begin(chunk, "h/1", HARD, configuration=ONE)
    assert ledger.chunks.leased_elsewhere(OTHER, HARD)
    assert not ledger.chunks.leased_elsewhere(ONE, HARD)
    ledger.runs.halt(run, "why", "abandoned")
    ledger.runs.finish(run)
    assert ledger.chunks.leased_elsewhere(OTHER, HARD), "it ends late"
    assert not ledger.chunks.leased_elsewhere(OTHER, -1.0), "the hard limit has ended it"
    ledger.chunks.settle(chunk, {"embedded": 1})
    assert not ledger.chunks.leased_elsewhere(OTHER, HARD)


def test_each_model_is_remembered_with_its_own_endpoint(ledger: Ledger) -> None:
    assert ledger.endpoint.compared("m", 8) is None
    ledger.endpoint.record_compared("m", 8, "u1", "here")
    ledger.endpoint.record_compared("m", 16, "u2", "here")
    ledger.endpoint.record_compared("n", 8, "u3", "there")
    assert ledger.endpoint.compared("m", 8) == ("u1", "here")
    assert ledger.endpoint.compared("n", 8) == ("u3", "there")
    assert ledger.endpoint.last()["url"] == "u3"


def test_runs_that_this_redis_does_not_know(ledger: Ledger) -> None:
    run, _ = opened(ledger)
    assert ledger.runs.unknown([]) == set()
    assert ledger.runs.unknown([run, "a", "a"]) == {"a"}
