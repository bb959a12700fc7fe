"""Whatever is done to a run in whatever order, a stage's result is the one its present inputs give."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from quoin.pipeline.core.config import StageConfig, StageResult
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.storage.run import Run
from tests.fixtures.stage_of import stage_of

NEEDS = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}


class Term(StageConfig):
    value: int = 0


class Sum(StageResult):
    total: int


class Killed(BaseException):
    """Stands for a kill in the middle of a stage."""


class RunMachine(RuleBasedStateMachine):
    """A diamond of stages; every stage adds its own value to what it needs."""

    @initialize()
    def start(self):
        self.folder = tempfile.TemporaryDirectory()
        self.photos = Path(self.folder.name) / "photos"
        self.values = dict.fromkeys(NEEDS, 0)
        self.worked: list[str] = []
        self.die_in: str | None = None
        self.open(seed=0)
        self.stages = {name: self.make(name) for name in NEEDS}

    def open(self, seed: int):
        self.run = Run.create(Path(self.folder.name) / "run", photos=self.photos, settings={}, seed=seed)

    def make(self, name: str):
        @stage_of(name, needs=NEEDS[name], version=1, result=Sum)
        def work(run: Run, config: Term, report: Reporter) -> Sum:
            self.worked.append(name)
            if self.die_in == name:
                raise Killed
            return Sum(total=config.value + sum(run.require(need).result["total"] for need in NEEDS[name]))

        return work

    def expected(self, name: str) -> int:
        return self.values[name] + sum(self.expected(need) for need in NEEDS[name])

    def go(self) -> int:
        for name in NEEDS:
            last = self.stages[name](self.run, Term(value=self.values[name]), Reporter()).total
        return last

    @rule(name=st.sampled_from(sorted(NEEDS)), value=st.integers(0, 3))
    def change(self, name: str, value: int):
        self.values[name] = value

    @rule()
    def reopen(self):
        self.open(seed=self.run.seed)

    @rule(seed=st.integers(0, 1))
    def reseed(self, seed: int):
        self.open(seed)

    @rule(name=st.sampled_from(sorted(NEEDS)))
    def force(self, name: str):
        self.run.invalidate(name)

    @rule(name=st.sampled_from(sorted(NEEDS)))
    def killed(self, name: str):
        self.die_in = name
        try:
            self.go()
        except Killed:
            self.open(seed=self.run.seed)
        finally:
            self.die_in = None

    @rule()
    def reconstruct(self):
        assert self.go() == self.expected("d")
        self.worked.clear()
        assert self.go() == self.expected("d")
        assert self.worked == [], "a second time there is nothing to do"

    @invariant()
    def the_file_says_what_memory_says(self):
        if hasattr(self, "run"):
            assert Run.open(self.run.path).record == self.run.record

    def teardown(self):
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestRunMachine = RunMachine.TestCase
TestRunMachine.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
