import pytest

from dfkd_edge.results.kept import repair_text

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
    provenance = {"rescue": {"repair": repair, "finetune": {"num_steps": 60}}}
    notes = {"int8": {"float_nodes": shipped, "finetuned": tuned}}
    text = repair_text(provenance, notes)
    assert text.startswith(told)
    assert ("a fine-tune of 60 steps lost no less" in text) is not tuned
    assert repair_text({"rescue": None}, notes) == ""
