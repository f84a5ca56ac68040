import pytest
import torch
import torch.nn.functional as F

from dfkd_edge.class_lint import look_alikes
from dfkd_edge.class_lint.look_alikes import look_alikes_text, nearest_rows
from dfkd_edge.class_names import parse_class_names
from dfkd_edge.config.settings import TeacherConfig
from dfkd_edge.networks.teacher import load_teacher


@pytest.mark.parametrize("block", [3, 1_000])
def test_every_class_finds_the_one_nearest_to_it(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_alikes, "BLOCK", block)
    head_KD = F.normalize(torch.randn(10, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    found = list(nearest_rows(head_KD))
    cosine_KK = (head_KD @ head_KD.T).fill_diagonal_(-1)
    assert [one for one, _, _ in found] == list(range(10))
    assert [other for _, other, _ in found] == cosine_KK.argmax(1).tolist()
    assert [cosine for *_, cosine in found] == pytest.approx(cosine_KK.amax(1).tolist())
    assert list(nearest_rows(head_KD[:1])) == []


@pytest.mark.parametrize("others", ["elephant guitar", "sofa couch"])
def test_classes_that_are_one_to_the_teacher_are_told_of_and_no_others(others: str) -> None:
    classes = parse_class_names("\n".join(("dog", *others.split(), "street")), "list")
    text = look_alikes_text(load_teacher(TeacherConfig(), classes))
    assert text.startswith("2 of 4 classes mean the same") == ("sofa" in others)
    assert ("'sofa' and 'couch'; merge them" in text) == bool(text) == ("sofa" in others)
