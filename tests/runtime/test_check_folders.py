import re
from pathlib import Path

import pytest

from dfkd_edge.runtime import check
from dfkd_edge.runtime.bundle_files import Bundle
from tests.fixtures.files import write_picture
from tests.runtime.conftest import RunCheck


def test_folders_are_scored_and_what_is_unusable_is_named(
    run_check: RunCheck, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for number, name in enumerate(("dog", "DOG", "great-danes")):
        write_picture(data / "photo" / name / "a.png", number)
    (data / "photo" / "dog" / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    whole = (data / "photo" / "dog" / "a.png").read_bytes()
    (data / "photo" / "dog" / "cut.png").write_bytes(whole[:40])
    (data / "photo" / "house").mkdir()
    code, errors, result = run_check(tiny_bundle.folder, "--data", str(data))
    assert (code, errors) == (0, "")
    found = result["models"]["int8"]["data"]
    assert found["domains"]["photo"]["num_images"] == 2
    assert found["worst_domain"] == "photo"
    low, high = found["domains"]["photo"]["top1_interval"]
    assert 0 <= low <= found["domains"]["photo"]["top1"] <= high <= 1
    assert high - low > 0.5
    said = "\n".join(found["skipped"])
    near = "great-danes: names no class, 1 picture passed over; did you mean great dane?"
    for line in ("broken.jpg", "cut.png", "house: holds no picture", near):
        assert line in said


def test_a_score_on_few_pictures_says_how_little_it_tells(
    tiny_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture(tmp_path / "data" / "dog" / "a.png", 0)
    folders = ["--bundle", str(tiny_bundle.folder), "--data", str(tmp_path / "data")]
    assert check.main([*folders, "--duration", "0"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "top-1" in line)
    assert re.match(r"\w+: (0|100)\.0% top-1, 95% interval \d+\.\d% to \d+\.\d%, on 1 ", line)
    assert ", on 1 picture: too few pictures to tell within 10 points; 100.0% answered" in line


@pytest.mark.parametrize("content", ["missing", "empty", "no class"])
def test_a_folder_without_pictures_of_a_class_stops_before_any_work(
    run_check: RunCheck, tiny_bundle: Bundle, tmp_path: Path, content: str
) -> None:
    data = tmp_path / "data"
    if content == "empty":
        data.mkdir()
    if content == "no class":
        write_picture(data / "dogs" / "a.png", 0)
    code, errors, result = run_check(tiny_bundle.folder, "--data", str(data))
    assert (code, errors.count("\n"), result) == (2, 1, {})
    assert f"--data {data}" in errors
    assert ("folder dogs: did you mean dog? expected DIR/" in errors) is (content == "no class")


def test_pictures_that_cannot_be_read_keep_the_rest_of_the_work(
    run_check: RunCheck, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    (data / "dog").mkdir(parents=True)
    (data / "dog" / "a.jpg").write_bytes(b"no")
    code, errors, result = run_check(tiny_bundle.folder, "--data", str(data))
    assert (code, errors.count("\n")) == (2, 1)
    assert "a.jpg" in errors
    assert result["models"]["int8"]["golden"]["passed"]
    assert not result["passed"]
