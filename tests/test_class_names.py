import os
from pathlib import Path

import pytest

from dfkd_edge.class_names import parse_class_names, read_class_names, slug
from dfkd_edge.errors import ClassNamesError, ConfigError
from dfkd_edge.files import read_toml


def test_comments_blank_lines_and_spaces_are_dropped_and_a_tab_gives_a_class_its_prompt() -> None:
    text = "# list\n\n  dog  \n\t\njaguar\ta photo of a jaguar, a big cat\n   # more\n"
    names = parse_class_names(text, "x")
    assert names.names == ("dog", "jaguar")
    assert names.prompts == (None, "a photo of a jaguar, a big cat")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_every_line_ending_and_a_bom_are_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(b"\xef\xbb\xbf" + ending.join(["café", "犬", "cat"]).encode())
    assert read_class_names(path).names == ("café", "犬", "cat")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no class name"),
        ("# only a comment\n", "no class name"),
        ("dog\n", "only one class name"),
        ("dog\nDOG\n", "already on line 1"),
        ("ﬁsh\nfish\n", "already on line 1"),
        ("dog\nca\x00t\n", "control character U\\+0000"),
        ("dog\n\u202etac\n", "hidden character U\\+202E"),
        ("dog\ncat\ta \u2066cat\n", "hidden character U\\+2066"),
        ("dog\n...\n", "no letter or digit"),
        ("dog, cat, horse\n", "3 names on one line make one class, 'dog, cat, horse' .*line 1"),
        ("# animals\ndog; cat", "2 names on one line .*line 2.*one name a line"),
        ("dog\nrake    a photo of a rake\n", "several spaces between 'rake' and .*line 2.*tab"),
        ("dog\ncrane\ta bird\ta crane\n", "several tabs in one line .*line 2.*one tab"),
        ("dog\ncrane\t\n", "'crane' has a tab but no prompt .*line 2.*remove the tab"),
        ("dog\ncrane \t \t\r\ncat", "'crane' has a tab but no prompt .*line 2"),
        ("dog   cat   horse\n", "several spaces between 'dog' and .*line 1.*own"),
        ("dog\n" + "x" * 101, "101 characters"),
        ("\n".join(f"c{i}" for i in range(1001)), "1001 class names"),
    ],
)
def test_each_fault_of_a_list_is_named(text: str, fault: str) -> None:
    with pytest.raises(ClassNamesError, match=fault):
        parse_class_names(text, "x")


def test_an_error_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(b"dog\ncat\n\xff\xfe\n")
    with pytest.raises(ClassNamesError, match=r"classes\.txt, line 3"):
        read_class_names(path)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/root", "a/b\\c", "..dog", "C:cat", "犬"])
def test_no_name_escapes_its_folder(tmp_path: Path, name: str) -> None:
    names = parse_class_names(f"{name}\nother\n", "x")
    for folder in names.slugs():
        assert (tmp_path / folder).resolve().parent == tmp_path.resolve()


def test_slugs_are_unique_even_when_names_reduce_to_the_same() -> None:
    assert len(set(parse_class_names("a b\na-b\na_b\n犬\n猫\n", "x").slugs())) == 5
    assert slug("Great Dane!") == "great-dane"


def test_a_thousand_classes_are_accepted() -> None:
    assert len(parse_class_names("\n".join(f"c{i}" for i in range(1000)), "x")) == 1000


def test_a_pipe_is_read_where_a_shell_gives_it_and_refused_in_a_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "classes.txt")
    with pytest.raises(ClassNamesError, match="cannot read class list: not a plain file"):
        read_class_names(tmp_path / "classes.txt")
    with pytest.raises(ConfigError, match="not a TOML file: not a plain file"):
        read_toml(tmp_path / "classes.txt")
    ends = os.pipe()
    os.write(ends[1], b"cat\ndog\n")
    os.close(ends[1])
    assert read_class_names(Path(f"/dev/fd/{ends[0]}")).names == ("cat", "dog")
    os.close(ends[0])
