"""A folder means what its owner meant, or the tool asks."""

import os
from pathlib import Path

import pytest

from dfkd_edge.runtime.faults import UsageFault
from dfkd_edge.runtime.folder_layouts import find_pictures
from dfkd_edge.runtime.folder_names import nearest
from dfkd_edge.runtime.picture_walk import walk
from tests.runtime.test_folder_layouts import lay

CLASSES = ("cat", "dog", "horse")


def read(root: Path, classes: tuple[str, ...] = CLASSES) -> dict[str, str]:
    """Each folder that counts, and the class it is taken for."""
    found = find_pictures(root, classes).folders
    return {f.path.name: classes[f.label] for f in found if f.label is not None}


@pytest.mark.parametrize(
    ("folders", "meant"),
    [
        (("1", "2", "3"), CLASSES),
        (("001", "002", "003"), CLASSES),
        (("0", "1", "2"), CLASSES),
        (("00", "01"), ("cat", "dog")),
        (("class_0", "class_2"), ("cat", "horse")),
        (("c1", "c2", "c3"), CLASSES),
        (("label-1", "label-3"), ("cat", "horse")),
        (("0_cat", "1_dog"), ("cat", "dog")),
        (("001.Cat", "002.Dog", "009.house"), ("cat", "dog")),
        (("n02084071-dog", "n02121620-cat"), ("dog", "cat")),
        (("cat_01", "dog_02"), ("cat", "dog")),
        (("cat_images", "dog_images"), ("cat", "dog")),
        (("class_cat", "class_dog"), ("cat", "dog")),
        (("CAT", "Dog "), ("cat", "dog")),
        (("-1", "0", "1"), ("cat", "dog")),
    ],
)
def test_numbers_ids_and_words_beside_names_are_read_as_one_would(
    tmp_path: Path, folders: tuple[str, ...], meant: tuple[str, ...]
) -> None:
    assert tuple(read(lay(tmp_path, *folders)).values()) == meant


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("0.0", "1.0", "2.0"), "no picture of any class"),
        (("2023-01", "2023-02"), "no picture of any class"),
        (("1", "2"), r"from 0 or from 1: from 0 folder 1 is 'dog', from 1 it is 'cat'"),
        (("0", "1", "2", "3"), r"numbered 0 to 3, which are more than the 3 classes"),
        (("1", "2", "3", "7"), r"folder 7 is a number beyond the 3 classes"),
        (("1", "01", "3"), r"folders '01' and '1' may both be class"),
        (("cat_1", "cat_2", "dog_1"), r"folders 'cat_1' and 'cat_2' may both be class 'cat'"),
        (("c a t", "cat"), r"folders 'c a t' and 'cat' may both be class 'cat'"),
        (("0/1", "1/2", "2/0"), r"folder '0' may be a class that holds '1', or a domain"),
        (("cat/dog", "dog", "horse"), r"folder 'cat' may be a class that holds 'dog', or a domain"),
        (("cat", "cat/dog", "dog"), r"folder 'cat' may be a class that holds 'dog', or a domain"),
    ],
)
def test_what_may_mean_two_things_is_refused_with_both(
    tmp_path: Path, folders: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageFault, match=said):
        find_pictures(lay(tmp_path, *folders), CLASSES)


@pytest.mark.parametrize(
    ("classes", "folders", "said"),
    [
        (
            ("grade 1", "grade 2", "grade 0"),
            ("0", "1", "2"),
            "0 may be class 'grade 0', or .*'grade 1'",
        ),
        (("two", "one"), ("1", "2"), "1 may be class 'one', or by its place 'two'"),
        (("0", "5"), ("0.5", "1.5"), "no picture of any class"),
        (("0", "1"), ("-1", "-0"), "no picture of any class"),
    ],
)
def test_numbers_that_names_hold_are_not_overruled_by_the_order_of_the_list(
    tmp_path: Path, classes: tuple[str, ...], folders: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageFault, match=said):
        find_pictures(lay(tmp_path, *folders), classes)


def test_no_more_is_dropped_from_a_name_than_need_be(tmp_path: Path) -> None:
    classes = ("boeing", "boeing 737", "photo album", "7")
    root = lay(tmp_path, "01_boeing", "02_boeing_737", "3. Photo Album (images)", "class_7")
    assert set(read(root, classes).values()) == set(classes)


def test_wrappers_are_looked_through_however_many_there_are(tmp_path: Path) -> None:
    root = lay(tmp_path, "unzipped/pacs/kfold/photo/cat", "unzipped/pacs/kfold/sketch/dog")
    assert [domain.name for domain in find_pictures(root, CLASSES).domains] == ["photo", "sketch"]


def test_files_whose_suffix_says_nothing_are_told_by_their_content(tmp_path: Path) -> None:
    names = ("a", "b.jpg_large", "c.png~", "d.1", "e.jpg?w=300")
    for name in names:
        (tmp_path / name).write_bytes(b"\xff\xd8\xff\xe0" + bytes(9))
    (tmp_path / "phone").write_bytes(b"\0\0\0\x18ftypheic")
    for name in ("README", "label.1", "f.txt", ".jpg"):
        (tmp_path / name).write_bytes(b"text")
    os.mkfifo(tmp_path / "pipe")
    found = walk(tmp_path)
    assert tuple(found.names) == names
    assert tuple(found.unread) == ("phone",)
    assert "phone: 1 file of no suffix, a format that is not read" in found.why_unread()[0]


def test_classes_that_are_numbers_are_matched_by_their_value(tmp_path: Path) -> None:
    digits = tuple(str(digit) for digit in range(1, 4))
    assert read(lay(tmp_path, "01", "02"), digits) == {"01": "1", "02": "2"}


@pytest.mark.parametrize(
    ("classes", "folders"),
    [
        (("7 up", "boeing 737"), ("01_7 up", "02_boeing 737")),
        (("1", "2"), ("class_1", "class_2")),
        (
            ("and/or", "bird's nest", "café", "st. bernard"),
            ("and_or", "bird_s_nest", "cafe", "st_bernard"),
        ),
        (("crane (bird)", "crane (machine)"), ("crane_bird", "crane_machine")),
        (("cafe", "café"), ("cafe", "café")),
    ],
)
def test_names_with_numbers_and_marks_of_their_own_are_found(
    tmp_path: Path, classes: tuple[str, ...], folders: tuple[str, ...]
) -> None:
    assert read(lay(tmp_path, *folders), classes) == dict(zip(folders, classes, strict=True))


@pytest.mark.parametrize(("link", "target"), [("dog", "cat"), ("dog/more", "cat")])
def test_pictures_that_a_link_lays_below_two_classes_are_refused(
    tmp_path: Path, link: str, target: str
) -> None:
    root = lay(tmp_path, "cat", *(["dog"] if "/" in link else []))
    (root / link).symlink_to(root / target, target_is_directory=True)
    with pytest.raises(UsageFault, match="folders 'cat' and 'dog' lead to the same pictures"):
        find_pictures(root, CLASSES)


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("n02084071", "n02121620"), "folders are WordNet ids: lay synset_words.txt beside them"),
        ((".",), "1 picture in no folder of a class"),
    ],
)
def test_what_lacks_names_is_told_what_it_lacks(
    tmp_path: Path, folders: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageFault, match=said):
        find_pictures(lay(tmp_path, *folders), CLASSES)


def test_classes_that_differ_by_a_dash_are_kept_apart(tmp_path: Path) -> None:
    classes = ("cat", "t-shirt", "t shirt")
    root = lay(tmp_path, "t-shirt", "t shirt", "cat")
    assert read(root, classes) == {"cat": "cat", "t shirt": "t shirt", "t-shirt": "t-shirt"}
    lay(tmp_path, "T_SHIRT")
    with pytest.raises(UsageFault, match="folder 'T_SHIRT' may be class 't-shirt' or 't shirt'"):
        find_pictures(root, classes)


@pytest.mark.parametrize(
    ("folders", "domains", "num_classes"),
    [
        (("train/bus", "train/train", "val/bus", "val/train"), ["val"], 2),
        (("train/bus", "train/car", "train/train"), ["train"], 3),
        (("train/train", "val/train"), ["val"], 1),
        (("train/bus", "val/bus", "test/car"), ["test", "val"], 2),
        (("photo/train/bus", "photo/train/train", "photo/val/train"), ["photo"], 2),
        (("bus/train", "car/train", "train/train", "bus/val"), None, 3),
        (("bus", "car", "train"), None, 3),
        (("Train/bus", "Valid/bus", "Valid/car"), ["Valid"], 2),
    ],
)
def test_a_class_named_like_a_split_is_told_by_what_lies_around_it(
    tmp_path: Path, folders: tuple[str, ...], domains: list[str] | None, num_classes: int
) -> None:
    found = find_pictures(lay(tmp_path, *folders), ("car", "bus", "train"))
    assert [domain.name for domain in found.domains] == (domains or [tmp_path.name])
    labels = {label for domain in found.domains for label in domain.labels}
    assert len(labels) == num_classes


def test_a_domain_named_like_a_class_is_a_domain(tmp_path: Path) -> None:
    root = lay(tmp_path, "sketch/cat", "sketch/sketch", "photo/cat", "photo/dog")
    found = find_pictures(root, ("cat", "dog", "sketch"))
    assert [domain.name for domain in found.domains] == ["photo", "sketch"]


def test_two_ids_of_one_name_are_refused_and_a_first_name_goes_before_a_synonym(
    tmp_path: Path,
) -> None:
    text = "n1 crane\nn2 crane\nn3 dog, domestic dog\nn4 hot dog, dog\n"
    (tmp_path / "words.txt").write_text(text, encoding="utf-8")
    root = lay(tmp_path, "n3", "n4")
    assert read(root, ("crane", "dog")) == {"n3": "dog"}
    lay(tmp_path, "n1", "n2")
    with pytest.raises(UsageFault, match="folders 'n1' and 'n2' may both be class 'crane'"):
        find_pictures(root, ("crane", "dog"))


def test_synonyms_of_the_list_are_found(tmp_path: Path) -> None:
    classes = ("tench, Tinca tinca", "great white shark, white shark")
    root = lay(tmp_path, "tench", "white_shark")
    assert tuple(read(root, classes).values()) == classes


def test_every_picture_counts_or_is_counted_as_left_out(tmp_path: Path) -> None:
    root = lay(tmp_path, "cat/session1", "dog/images/deep", "misc/more", "cat")
    (root / "loose.png").touch()
    for name in ("a.HEIC", "b.heic"):
        (root / "dog" / name).touch()
    found = find_pictures(root, CLASSES)
    assert found.num_pictures == 3
    said = "\n".join(found.skipped)
    assert "misc: names no class, 1 picture passed over" in said
    assert "1 picture beside the class folders left out" in said
    assert "2 files of .heic, a format that is not read: save as JPEG or PNG" in said


def test_a_name_of_two_lines_is_told_in_one(tmp_path: Path) -> None:
    (line,) = find_pictures(lay(tmp_path, "cat", "x\nnote: 100 % right"), CLASSES).skipped
    assert "\n" not in line


def test_domains_without_classes_are_counted(tmp_path: Path) -> None:
    found = find_pictures(lay(tmp_path, "photo/cat", "other/zebra", "other/yak"), CLASSES)
    (line,) = found.skipped
    assert line.endswith("other: 2 pictures outside of what is read here")


@pytest.mark.parametrize("name", ["cat", "dog", "CAT", "cats", "001.cats"])
def test_no_hint_equals_the_name_that_it_mends(name: str) -> None:
    assert nearest(name, CLASSES) != name


def test_a_class_folder_without_pictures_is_told_as_that(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(UsageFault, match="folder cat holds no picture; expected DIR/"):
        find_pictures(tmp_path, CLASSES)


def test_a_walk_sees_what_links_lead_to_and_none_of_what_systems_lay_there(tmp_path: Path) -> None:
    few = lay(tmp_path / "few", "cat", "dog/@eaDir/1.jpg", "__MACOSX/cat", ".hidden", "dog")
    (few / "cat" / "._1.jpg").touch()
    (few / "cat" / "up").symlink_to(few, target_is_directory=True)
    (few / "cat" / "self").symlink_to("self")
    data = tmp_path / "data"
    data.mkdir()
    for name in ("cat", "dog"):
        (data / name).symlink_to(few / name, target_is_directory=True)
    below = [str(path.relative_to(data)) for path in walk(data).pictures()]
    assert below == ["cat/1.jpg", "dog/1.jpg"]
    assert [str(path.relative_to(few)) for path in walk(few).pictures()] == [
        "cat/1.jpg",
        "dog/1.jpg",
    ]


def test_a_maze_of_links_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfkd_edge.runtime.picture_walk.MAX_ENTRIES", 500)
    for one in range(6):
        (tmp_path / str(one)).mkdir()
        for two in range(6):
            (tmp_path / str(one) / f"to{two}").symlink_to(tmp_path / str(two))
    with pytest.raises(UsageFault, match=r"more than 500 files.*without links"):
        walk(tmp_path)
