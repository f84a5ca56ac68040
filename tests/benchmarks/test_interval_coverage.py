"""A small version of the benchmark: every seventh kind of experiment, sixty times."""

import dataclasses
from pathlib import Path

import pytest

NUM = 60


def test_intervals_hold_the_truth_as_often_as_they_say_and_the_benchmark_finds_those_that_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    from interval_coverage import all_rows, drawn, measure

    rows = list(all_rows())
    assert len({row.interval for row in rows}) == 9
    results = [measure(row, NUM, seed=1) for row in rows[2::7]]
    assert [r for r in results if r.verdict != "ok"] == []
    large = next(row for row in rows if row.is_large and row.interval == "share, views")
    assert "apart" in large.pictures
    wide = dataclasses.replace(large, experiment=lambda _: (0.0, 1.0))
    point = dataclasses.replace(
        large, experiment=lambda g: (drawn(g, "alike", 0.9, 9, 1).mean(),) * 2
    )
    found = [measure(row, 1_000).verdict for row in (wide, point)]
    assert found == ["TOO WIDE", "TOO NARROW"]
