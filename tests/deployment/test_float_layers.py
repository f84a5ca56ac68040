import contextlib
from collections.abc import Iterator

import numpy as np
import pytest

from dfkd_edge.deployment.float_layers import RepairReport, Sensitivity, _fewest, restore_layers
from dfkd_edge.errors import ConversionError
from dfkd_edge.interfaces import Progress
from dfkd_edge.results.gate import Gate
from dfkd_edge.validation.statistics import paired_drop
from tests.fixtures.ladders import gate

NODES = tuple("abcdefghijkl")
HARM = dict(zip(NODES, (9, 7, 5, 3, 2, 1, 1, 0, 0, 0, 0, 0), strict=True))
"""Images that each layer loses of 100 while it is in INT8."""


class Silence:
    """Keeps what is said beside the bar."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def advance(self, count: int = 1, note: str = "") -> None:
        self.said.append(note)

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Progress]:
        yield self

    def note(self, text: str) -> None: ...


def _judged(drop: float, max_drop: float) -> Gate:
    before = np.ones(100, np.bool_)
    loss = paired_drop(before, np.arange(100) >= round(100 * drop))
    return gate(passed=loss.drop.mean <= max_drop, max_drop=max_drop, drop=loss.drop.mean)


RANKED = tuple(Sensitivity(node, 1.0, -HARM[node]) for node in NODES)


def restored(max_drop: float, reporter: Silence | None = None) -> RepairReport:
    """Repair the graph that loses 28 images of 100."""

    def judge(float_nodes: frozenset[str]) -> Gate:
        return _judged(sum(HARM[node] for node in HARM.keys() - float_nodes) / 100, max_drop)

    return restore_layers(RANKED, len(NODES), judge, 0.28, reporter or Silence())


def test_doubling_and_halving_find_the_fewest_with_few_trials() -> None:
    for fewest in range(1, 18):
        tried: list[int] = []

        def passes(count: int, fewest: int = fewest, tried: list[int] = tried) -> bool:
            tried.append(count)
            return count >= fewest

        assert _fewest(passes, 16) == (fewest if fewest <= 16 else None)
        assert len(tried) == len(set(tried)) <= 8


def test_the_fewest_layers_that_leave_half_of_the_limit_go_back_to_float() -> None:
    listener = Silence()
    report = restored(0.15, listener)
    assert (report.passed, report.float_nodes) == (True, ("a", "b", "c"))
    assert report.drop_after == pytest.approx(0.07)
    said = [*listener.said, report.sentence()]
    assert "3 of 12 layers back to float, drop 28.00 -> 7.00 points of " in said[-1]
    assert len(said) > 2
    assert all(line.endswith(" on views to choose by, not the gate's") for line in said)


def test_where_half_of_the_limit_is_out_of_reach_the_smallest_graph_within_it_is_taken() -> None:
    report = restored(0.05)
    assert (report.passed, round(report.drop_after, 3)) == (True, 0.04)
    wide = tuple(f"n{number}" for number in range(30))  # one layer suffices, more change nothing
    ranked = tuple(Sensitivity(node, 1.0, 0.0) for node in wide)
    report = restore_layers(ranked, 30, lambda _: _judged(0.04, 0.05), 0.28, Silence())
    assert (report.passed, report.float_nodes) == (True, ("n0",))


def test_a_third_of_the_layers_is_the_limit_and_the_best_graph_is_named() -> None:
    report = restored(0.0)
    assert (report.passed, len(report.float_nodes)) == (False, 4)
    assert report.drop_after == pytest.approx(0.04)


def test_layers_that_cannot_be_left_in_float_end_no_repair() -> None:
    def judge(float_nodes: frozenset[str]) -> Gate:
        raise ConversionError("no such graph")

    report = restore_layers(RANKED, len(NODES), judge, 0.28, Silence())
    assert (report.passed, report.float_nodes, report.drop_after) == (False, (), 0.28)
    nothing = restore_layers((), len(NODES), judge, 0.28, Silence())
    assert nothing.num_graphs == 0
    assert nothing.sentence().endswith("no graph could be made with layers in float")


def test_a_repair_that_puts_nothing_back_says_what_was_tried() -> None:
    report = restore_layers(RANKED, len(NODES), lambda _: _judged(0.3, 0.05), 0.28, Silence())
    assert report.float_nodes == ()
    tried = f"none of the {report.num_graphs} graphs tried with layers in float loses less"
    assert report.sentence().endswith(tried)
