import json

import pytest

from dfkd_edge.errors import ArtifactError
from dfkd_edge.results.codec import from_json
from dfkd_edge.results.kept import Int8Notes, Rescue, repair_text
from dfkd_edge.results.ladder import HELDOUT_DOMAIN, Ladder
from dfkd_edge.results.wording import Metric
from tests.fixtures.ladders import confidence, figures, gate, ladder, rung


def test_a_ladder_is_read_as_it_was_written_under_the_documented_keys() -> None:
    whole = ladder(
        rung("teacher", {"photo": figures(latency := 0.9)}, latency_ms=1.5, latency_caveats=("x",)),
        gate=gate(),
        confidence=confidence(),
    )
    document = json.loads(json.dumps(whole.to_json()))
    assert Ladder.from_json(document, "check.json") == whole
    assert document["measure"] == "top1"
    assert document["rungs"][0]["domains"]["photo"]["top1"] == latency
    assert document["rungs"][0]["latency_doubts"] == ["x"]
    assert {"passed", "off", "max_drop", "drop", "sentence"} <= document["gate"].keys()


@pytest.mark.parametrize(
    "damage",
    [{"rungs": r} for r in ("none", [], [{"name": "x"}])] + [{"schema": 2}, {"measure": "luck"}],
    ids=str,
)
def test_a_damaged_or_newer_ladder_is_refused_by_name(damage: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match=r"check\.json"):
        Ladder.from_json({**ladder().to_json(), **damage}, "check.json")
    with pytest.raises(ArtifactError, match=r"check\.json"):
        Ladder.from_json([], "check.json")


@pytest.mark.parametrize("kind", ["no teacher", "a rung without a domain", "a mean of nothing"])
def test_rungs_that_do_not_fit_together_are_one_line(kind: str) -> None:
    whole = ladder(*(rung(name, {"photo": figures(0.9)}) for name in ("teacher", "onnx-int8")))
    document = json.loads(json.dumps(whole.to_json()))
    assert Ladder.from_json(document, "validation.json") == whole
    if kind == "no teacher":
        document["rungs"] = document["rungs"][1:]
    elif kind == "a rung without a domain":
        document["rungs"][1]["domains"] = {}
    else:
        document["mean_over"] = ["sketch"]
    with pytest.raises(ArtifactError, match=r"rungs differ .*validation\.json\): measure it again"):
        Ladder.from_json(document, "validation.json")


def test_surrogates_beside_labelled_pictures_count_in_no_mean() -> None:
    domains = {HELDOUT_DOMAIN: figures(0.5, 40), "photo": figures(0.8, 1_000)}
    mixed = ladder(rung("student", domains), mean_over=("photo",))
    assert mixed.shown_domains == ["photo"]
    assert (mixed.mean(mixed.shipped), mixed.num_images) == (0.8, 1_000)


@pytest.mark.parametrize(
    ("metric", "why"), [("agreement", "counts by its views"), ("top1", "no label")]
)
def test_a_ladder_says_that_no_worst_domain_is_the_held_out_images_shown_whole(
    metric: Metric, why: str
) -> None:
    domains = {HELDOUT_DOMAIN: figures(0.5, 40), "noise": figures(0.8, 1_000)}
    apart = ladder(rung("student", domains), mean_over=("noise",), metric=metric)
    (note,) = apart.caveats()
    assert note.startswith("held-out surrogates: mean, worst domain and gate leave them out")
    assert why in note
    assert not ladder(rung("student", domains), mean_over=tuple(domains)).caveats()


FOUND: list[str] = ["a", "b"]
CASES = [
    (FOUND, FOUND, False, "2 of 9 layers put back to float"),
    (FOUND, FOUND, True, "2 of 9 layers put back to float; fine-tuned for 60 steps"),
    (FOUND, [], True, "0 of 9 layers put back to float: the fine-tuned student needs none; fine-"),
    ([], [], False, "0 of 9 layers put back to float: none of the 4 graphs tried with layers in "),
]


@pytest.mark.parametrize(("found", "shipped", "tuned", "told"), CASES)
def test_the_layers_that_ship_in_float_are_told_and_why_none_does(
    found: list[str], shipped: list[str], tuned: bool, told: str
) -> None:
    repair = {"float_nodes": found, "num_quantizable": 9, "num_graphs": 4}
    rescue = from_json(Rescue, {"repair": repair, "finetune": {"num_steps": 60}}, "manifest")
    notes = Int8Notes(tuple(shipped), tuned)
    text = repair_text(rescue, notes)
    assert text.startswith(told)
    assert ("a fine-tune of 60 steps lost no less" in text) is not tuned
    assert repair_text(None, notes) == ""
