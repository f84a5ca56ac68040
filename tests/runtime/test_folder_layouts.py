"""The layouts of the usual benchmarks, as folders of empty files."""

from __future__ import annotations

import difflib
import random
from pathlib import Path

import pytest

from dfkd_edge.runtime.faults import UsageFault
from dfkd_edge.runtime.folder_layouts import (
    NEAR,
    NearNames,
    expected_layout,
    folders_in,
    read_layout,
)

CLASSES = ("dog", "alarm clock", "person")


def lay(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).mkdir(parents=True, exist_ok=True)
        (root / path / "1.jpg").touch()
    return root


@pytest.mark.parametrize(
    ("paths", "domains", "said"),
    [
        (["kfold/photo/dog", "kfold/art_painting/dog"], {"photo", "art_painting"}, "PACS"),
        (
            ["CALTECH/train/0", "CALTECH/test/0", "SUN/full/2", "SUN/test/2"],
            {"CALTECH", "SUN"},
            "VLCS lays them out, through full, test, train; 2 of 3 classes, folders are numbers",
        ),
        (["Art/Alarm_Clock", "Real World/Alarm_Clock"], {"Art", "Real World"}, "OfficeHome"),
        (["Art/Alarm_Clock", "RealWorld/AlarmClock"], {"Art", "RealWorld"}, "OfficeHome"),
        (["quickdraw/dog", "real/alarm-clock"], {"quickdraw", "real"}, "DomainNet"),
        (["train/dog", "validation/person"], {"train", "validation"}, "VisDA"),
        (["amazon/images/dog", "webcam/images/dog"], {"amazon", "webcam"}, "Office-Caltech"),
        (["train/dog", "val/dog", "val/person"], {"val"}, "ImageNet"),
        (
            ["indoors/DOG", "outdoors/dog"],
            {"indoors", "outdoors"},
            "2 domains (indoors, outdoors);",
        ),
    ],
)
def test_a_benchmark_is_read_as_it_is_laid_out(
    tmp_path: Path, paths: list[str], domains: set[str], said: str
) -> None:
    layout = read_layout(lay(tmp_path, *paths), CLASSES)
    assert {folder.domain for folder in layout.folders} == domains
    assert all(folder.label is not None for folder in layout.folders)
    assert said in layout.description


def test_the_full_set_of_a_domain_counts_its_pictures_once(tmp_path: Path) -> None:
    layout = read_layout(lay(tmp_path, "SUN/full/0", "SUN/train/0", "SUN/test/0"), CLASSES)
    assert [folder.path.parent.name for folder in layout.folders] == ["full"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("LOC_synset_mapping.txt", "n1 fox\nn2 domestic dog, dog\n"),
        ("words.txt", "n1\tfox\nn2\tdog\n"),
        ("imagenet_class_index.json", '{"0": ["n1", "fox"], "1": ["n2", "dog"]}'),
    ],
)
def test_wordnet_folders_are_read_by_a_mapping_file(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    layout = read_layout(lay(tmp_path, "val/n1", "val/n2"), CLASSES)
    assert [(f.path.name, f.label) for f in layout.folders] == [("n1", None), ("n2", 0)]
    assert "WordNet ids" in layout.description


def test_numbers_are_classes_only_where_no_folder_has_a_name(tmp_path: Path) -> None:
    layout = read_layout(lay(tmp_path, "photo/dog", "photo/1"), CLASSES)
    assert [(f.path.name, f.label) for f in layout.folders] == [("1", None), ("dog", 0)]
    assert read_layout(lay(tmp_path / "none", "photo/cat"), CLASSES).folders == ()


@pytest.mark.parametrize("text", ["{", "[]", '{"0": ["n1"]}', "null"])
def test_a_damaged_index_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "imagenet_class_index.json").write_text(text, encoding="utf-8")
    with pytest.raises(UsageFault, match=r"imagenet_class_index\.json"):
        read_layout(lay(tmp_path, "val/n1"), CLASSES)


def test_a_folder_that_cannot_be_listed_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match="cannot be read: No such file"):
        folders_in(tmp_path / "gone")


def test_a_folder_of_no_class_names_the_near_one_unless_that_has_its_own(tmp_path: Path) -> None:
    root = lay(tmp_path, "in/dogs", "in/person", "in/zebra", "out/dogs", "out/dog", "out/Alarmclok")
    near = {str(f.path.relative_to(root)): f.near for f in read_layout(root, CLASSES).folders}
    assert near == {
        "in/dogs": "dog",
        "in/person": "",
        "in/zebra": "",
        "out/dogs": "",
        "out/dog": "",
        "out/Alarmclok": "alarm clock",
    }


@pytest.mark.parametrize("above", ["", "photo/"])
def test_names_near_to_a_class_are_asked_for_where_no_folder_names_one(
    tmp_path: Path, above: str
) -> None:
    root = lay(tmp_path, f"{above}dogs", f"{above}persons", f"{above}zebra")
    assert read_layout(root, CLASSES).folders == ()
    hint = expected_layout(root, CLASSES)
    assert hint.startswith(
        "folder dogs: did you mean dog? folder persons: did you mean person? exp"
    )
    assert "zebra" not in hint


def made_up_names(num: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    syllables = ("ba", "co", "dri", "el", "fu", "go", "hi", "jo", "ka", "lu", "mo", "nor", "pe")
    return ["".join(chance.choices(syllables, k=chance.randint(1, 6))) for _ in range(num)]


def test_the_nearest_name_is_the_one_that_comparing_all_pairs_would_find() -> None:
    classes = list(dict.fromkeys(made_up_names(100, seed=0)))
    names = NearNames(classes)
    found = [names.nearest(name) for name in made_up_names(100, seed=1)]
    pairs = [difflib.get_close_matches(n, classes, 1, NEAR) for n in made_up_names(100, seed=1)]
    assert found == [near[0] if near else "" for near in pairs]
    assert any(found)
    assert not all(found)
    assert (NearNames([]).nearest("dog"), NearNames(["dog"]).nearest("_")) == ("", "")


def test_few_of_a_million_pairs_of_strange_names_are_compared_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = ("dog", *(f"{name} {k}" for k, name in enumerate(made_up_names(999, seed=0))))
    for k, name in enumerate(made_up_names(999, seed=1)):
        (tmp_path / f"{name[::-1]}zzyx{k}").mkdir()
    (tmp_path / "dog").mkdir()
    compared = []

    class Counting(difflib.SequenceMatcher):  # type: ignore[type-arg]
        def real_quick_ratio(self) -> float:
            compared.append(self)
            return super().real_quick_ratio()

    monkeypatch.setattr(difflib, "SequenceMatcher", Counting)
    assert len(read_layout(tmp_path, classes).folders) == 1_000
    assert len(compared) < 10_000


def test_no_more_near_names_are_looked_for_than_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, asked = lay(tmp_path, *(f"dogs{k}" for k in range(9))), []
    nearest = NearNames.nearest

    def counted(self: NearNames, name: str) -> str:
        asked.append(name)
        return nearest(self, name)

    monkeypatch.setattr(NearNames, "nearest", counted)
    assert expected_layout(root, CLASSES).count("did you mean dog?") == len(asked) == 3
