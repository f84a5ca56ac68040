import json

import pytest

from dfkd_edge.errors import ArtifactError
from dfkd_edge.results.ladder import HELDOUT_DOMAIN, Ladder
from tests.fixtures.ladders import confidence, figures, gate, ladder, rung


def test_a_ladder_is_read_as_it_was_written_under_the_documented_keys() -> None:
    whole = ladder(
        rung("student", {"photo": figures(latency := 0.9)}, latency_ms=1.5, latency_caveats=("x",)),
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
    [
        {"rungs": "none"},
        {"rungs": []},
        {"schema": 2},
        {"rungs": [{"name": "student"}]},
        {"measure": "luck"},
    ],
    ids=str,
)
def test_a_damaged_or_newer_ladder_is_refused_by_name(damage: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match=r"check\.json"):
        Ladder.from_json({**ladder().to_json(), **damage}, "check.json")
    with pytest.raises(ArtifactError, match=r"check\.json"):
        Ladder.from_json([], "check.json")


def test_surrogates_beside_labelled_pictures_count_in_no_mean() -> None:
    domains = {HELDOUT_DOMAIN: figures(0.5, 40), "photo": figures(0.8, 1_000)}
    mixed = ladder(rung("student", domains), mean_over=("photo",))
    assert mixed.shown_domains == ["photo"]
    assert (mixed.mean(mixed.shipped), mixed.num_images) == (0.8, 1_000)
