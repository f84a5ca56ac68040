"""What a swap of classes says of itself."""

import dataclasses

from dfkd_edge.results.swap import KeptCost, Swap


def test_a_loss_of_more_than_two_points_of_what_stays_is_told() -> None:
    cost = KeptCost(
        before=0.9,
        after=0.875,
        interval=(0.01, 0.04),
        num_images=200,
        num_pictures=100,
        taken_by=("horse to zebra",),
    )
    swap = Swap(
        bundle="b", bundle_sha256="0", student_sha256="0", learnt=("horse",), unlearnt=(), cost=cost
    )
    assert "+2.5 points lost (+1.0 to +4.0)" in swap.warnings()[-1]
    assert swap.warnings()[-1].endswith("horse to zebra")
    little = dataclasses.replace(cost, after=0.881)
    assert not any("points" in w for w in dataclasses.replace(swap, cost=little).warnings())
    unknown = dataclasses.replace(swap, cost=None, unmeasured=("horse",))
    assert "cost not known for horse: classes that stay" in unknown.warnings()[-1]
    assert unknown.is_doubtful
    assert dataclasses.replace(swap, cost=None).cost_sentence().startswith("no class of the earl")


def test_the_fit_of_a_head_says_how_many_images_a_name_had_and_which_had_none() -> None:
    names = tuple(f"new {number}" for number in range(1_000))
    swap = Swap(
        bundle="b",
        bundle_sha256="0",
        student_sha256="0",
        learnt=("horse",),
        unlearnt=names,
        drawn=names[2:],
        num_drawn_images=2 * 998,
        cost=None,
    )
    said = "fitted to drawings of 998 new names, 2 images each; text alone for new 0, new 1"
    assert swap.fit_sentence() == said
    assert said in swap.warnings()[0]
    assert dataclasses.replace(swap, drawn=(), num_drawn_images=0).fit_sentence() == "text alone"
