"""The layouts of the usual benchmarks, as folders of empty files."""

from pathlib import Path

import pytest

from dfkd_edge.runtime import folder_layouts
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.faults import UsageFault
from dfkd_edge.runtime.folder_layouts import MAX_COMPARED, find_pictures, read_layout
from dfkd_edge.runtime.picture_walk import walk

CLASSES = ("dog", "alarm clock", "person")


def lay(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).mkdir(parents=True, exist_ok=True)
        (root / path / "1.jpg").touch()
    return root


@pytest.mark.parametrize(
    ("paths", "domains"),
    [
        (["kfold/photo/dog", "kfold/art_painting/dog"], ["art_painting", "photo"]),  # PACS
        (["Art/Alarm_Clock", "Real World/Alarm_Clock"], ["Art", "Real World"]),  # OfficeHome
        (["RealWorld/AlarmClock", "indoors/DOG"], ["RealWorld", "indoors"]),
        (["quickdraw/dog", "real/alarm-clock"], ["quickdraw", "real"]),  # DomainNet
        (["train/dog", "validation/person"], ["train", "validation"]),  # VisDA
        (["train/dog", "val/dog", "val/person"], ["val"]),  # ImageNet
    ],
)
def test_a_benchmark_is_read_as_it_is_laid_out(
    tmp_path: Path, paths: list[str], domains: list[str]
) -> None:
    found = read_layout(lay(tmp_path, *paths), CLASSES)
    assert [domain.name for domain in found.domains] == domains
    left_out = ["train: 1 picture outside of what is read here"] * (domains == ["val"])
    assert [line.rpartition("/")[2] for line in found.skipped] == left_out
    assert found.description.startswith(f"{counted(len(domains), 'domain')} ({domains[0]}")


def test_splits_are_looked_through_and_numbers_are_classes_in_the_order_of_the_list(
    tmp_path: Path,
) -> None:
    # `full` holds the pictures of the other splits once more: they count once
    vlcs = lay(
        tmp_path, "CALTECH/train/0", "CALTECH/test/0", "SUN/full/2", "SUN/train/2", "SUN/test/2"
    )
    found = read_layout(vlcs, CLASSES)
    assert found.description == (
        "2 domains (CALTECH, SUN), through full, test, train; 2 of 3 classes, folders are "
        "numbers from 0, in the order of the list"
    )
    assert [(domain.name, domain.labels) for domain in found.domains] == [
        ("CALTECH", (0, 0)),
        ("SUN", (2,)),
    ]


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
def test_an_index_or_folder_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "imagenet_class_index.json").write_text(text, encoding="utf-8")
    with pytest.raises(UsageFault, match=r"imagenet_class_index\.json"):
        read_layout(lay(tmp_path, "val/n1"), CLASSES)
    with pytest.raises(UsageFault, match="cannot be read: No such file"):
        walk(tmp_path / "gone")


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
    near = "folder dogs: did you mean dog? folder persons: did you mean person? expected DIR/"
    with pytest.raises(UsageFault) as caught:
        find_pictures(root, CLASSES)
    assert caught.value.hint.startswith(near)


def test_no_more_names_are_compared_than_a_user_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def nearest(name: str, classes: object) -> str:
        compared.append(name)
        return ""

    monkeypatch.setattr(folder_layouts, "nearest", nearest)
    for k in range(MAX_COMPARED + 9):
        (tmp_path / f"strange{k}").mkdir()
    with pytest.raises(UsageFault):
        find_pictures(tmp_path, CLASSES)
    assert len(compared) == MAX_COMPARED
    (tmp_path / "dog").mkdir()
    assert len(read_layout(tmp_path, CLASSES).folders) == MAX_COMPARED + 10
    assert len(compared) == 2 * MAX_COMPARED
