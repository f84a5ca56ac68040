"""What `distill` refuses before anything is made, and how it heads what it measured."""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dfkd_edge.commands.distill_view import below_start_text, comparisons, weak_text
from dfkd_edge.errors import DfkdEdgeError
from dfkd_edge.results.ladder import HELDOUT_DOMAIN, START, STUDENT, TEACHER, Ladder
from dfkd_edge.validation.ladder import step_loss
from dfkd_edge.validation.predictions import DomainPredictions, Predictions
from tests.fixtures.command import invoke
from tests.fixtures.files import write_picture
from tests.fixtures.ladders import figures, ladder, rung
from tests.fixtures.typed import class_count

REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "no folder of pictures": (("--images", "none"), "no such folder"),
    "empty folder": (("--images", "empty"), "no picture"),
    "unreadable picture": (("--images", "broken"), "picture cannot be read"),
    "many pictures": (("--images", "few", "--set", "few_shot.max_per_class=1"), "count as few"),
    "test pictures to learn from": (("--images", "few", "--data", "test"), "also a test picture"),
    "no test pictures": (("--data", "empty"), "no picture of any class"),
    "unreadable test pictures": (("--data", "broken"), "no picture of domain 'broken' can be read"),
    "unknown weights": (("--teacher", "ViT-B-32", "--pretrained", "mine"), "no weights 'mine'"),
    "folder without a teacher": (("--teacher", "empty"), "cannot be loaded"),
    "student without start weights": (("--student", "cs3darknet_s"), "no pretrained weights"),
    "preset out of reach": (("--preset", "clip-b32"), "out of its reach"),
    "no style words": (
        ("--prompts", "mix", "--set", "prompts.style_words=none.txt"),
        "style words cannot be read",
    ),
    "no such baseline": (("--baseline", "MobileCLIP2-S9"), "unknown baseline 'MobileCLIP2-S9'"),
    "baseline out of reach": (("--baseline", "MobileCLIP2-S0"), "reach: baseline MobileCLIP2-S0"),
    "baseline of nothing": (("--baseline", "empty"), "baseline 'empty' cannot be loaded"),
    "no decoder": (("--set", "synthesis.decoder=none.ckpt"), "no such checkpoint"),
    "odd size": (("--set", "synthesis.image_size_px=33"), "33 px is no multiple"),
    "no pipeline": (("--synthesis", "diffusion", "--set", "synthesis.pipeline=empty"), "pipeline"),
    "student that the target lacks operators for": (
        (
            *("--student", "test_resnet", "--student-init", "random", "--imgsz", "32"),
            *("--set", "export.target=strict.toml"),
        ),
        "student 'test_resnet' cannot be exported for strict: lint rule operators",
    ),
    "no such device": (("--device", "cuda:77"), "cannot be used"),
    "a device of nobody": (("--device", "tpu"), "no device 'tpu' (--device): cpu, cuda or cuda:1"),
    "a device without numbers": (("--device", "meta"), "no data! (--device): use --device cpu"),
    "a device of another torch": (("--device", "mps"), "backend (--device): use --device cpu"),
    "foreign output": (("-o", "test"), "holds no run"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder as a user's, with an earlier run, on a machine without network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "classes.txt").write_text("dog\nhouse\n", encoding="utf-8")
    strict = 'base = "nano@jp4.6.6"\nunsupported_ops = ["Relu"]\n'
    (tmp_path / "strict.toml").write_text(strict, encoding="utf-8")
    (tmp_path / "empty" / "dog").mkdir(parents=True)
    (tmp_path / "broken" / "dog").mkdir(parents=True)
    (tmp_path / "broken" / "dog" / "1.png").write_bytes(b"no picture")
    for number in range(2):
        write_picture(tmp_path / "few" / "dog" / f"{number}.png", number)
    write_picture(tmp_path / "test" / "photo" / "dog" / "other.png", 1)
    (tmp_path / "runs" / "earlier").mkdir(parents=True)
    (tmp_path / "runs" / "latest").symlink_to("earlier")
    with contextlib.chdir(tmp_path):
        yield tmp_path


def content(root: Path) -> dict[str, bytes | str]:
    return {
        path.relative_to(root).as_posix(): str(path.readlink())
        if path.is_symlink()
        else (path.read_bytes() if path.is_file() else "folder")
        for path in root.rglob("*")
    }


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_leaves_no_trace(name: str, place: Path) -> None:
    arguments, said = REFUSED[name]
    before = content(place)
    result = invoke("distill", "--classes", "classes.txt", *arguments)
    assert isinstance(result.exception, DfkdEdgeError), result.exception
    assert said in str(result.exception)
    assert content(place) == before


def test_folders_of_no_class_and_slips_in_the_list_are_told_before_a_student_is_trained(
    place: Path,
) -> None:
    write_picture(place / "test" / "photo" / "houses" / "1.png", 2)
    (place / "classes.txt").write_text("dog\nhouse\ndog, cat\n", encoding="utf-8")
    flags = ("--data", "test", "--teacher", "hf-hub:nobody/nothing")
    result = invoke("distill", "--classes", "classes.txt", *flags)
    assert "out of its reach" in str(result.exception)
    assert "passed over, no class of the list: photo/houses (did you mean house?)" in result.stderr
    said = " ".join(result.stderr.split())
    assert "'dog, cat': one class, not 2: write one name a line, unless" in said


def test_the_panel_names_what_to_look_at_first() -> None:
    horse = class_count("horse", num_drawn=30, drawings={"horse": 30}, num_of_its_name=30)
    barrow = class_count("wheelbarrow", num_drawn=9, drawings={"wheel": 6}, num_of_its_name=0)
    hoe = class_count("hoe", drawings={}, num_of_its_name=0)
    rake = class_count("rake", num_drawn=9, acceptance=0.4)
    fine, wrong = ladder(), {"dog": {"house": 90, "dog": 10}, "house": {"house": 100}}
    doubted = "the teacher doubts most images of rake; --images DIR helps"
    assert weak_text(fine, [horse, barrow, hoe, rake]) == doubted
    assert weak_text(fine, [horse, hoe, barrow]) == "drawn as something else: wheelbarrow"
    assert weak_text(fine, [horse, hoe]) == "no drawing fits hoe, expect less"
    assert weak_text(fine, [horse]) == weak_text(fine, [class_count("horse")]) == ""
    failing = ladder(rung("student", {"photo": figures(0.55, 200, confusion=wrong)}))
    assert weak_text(failing, [hoe]) == "wrong more often than right: dog (10% of 100)"


NAMES = ("teacher", "student-start", "student")
PICTURES = [figures(0.751, agreement=1.0), figures(0.612, agreement=0.532), figures(0.683)]
SURROGATES = [figures(0.999, agreement=1.0), figures(0.612), figures(0.923)]


def shown(evaluation: Ladder) -> str:
    stream = io.StringIO()
    for table in comparisons(evaluation, "pretrained"):
        Console(file=stream, width=100).print(table)
    return stream.getvalue()


@pytest.mark.parametrize(("num", "is_told"), [(20, False), (900, True)])
def test_a_student_is_below_its_start_where_that_is_no_chance_and_says_on_how_many(
    num: int, is_told: bool
) -> None:
    before, after = np.arange(num) % 20 > 0, np.arange(num) % 20 > 1  # 95% and 90%
    names, labels = (TEACHER, START, STUDENT), np.zeros(num, np.int64)
    right = {TEACHER: np.ones(num, bool), START: before, STUDENT: after}
    logits = {name: np.stack([right[name], ~right[name]], 1).astype(np.float32) for name in names}
    part = DomainPredictions(labels, np.arange(num), logits)
    step = step_loss(START, STUDENT, Predictions("top1", {"photo": part}))
    shares = {TEACHER: 1.0, START: 0.95, STUDENT: 0.9}
    rungs = [rung(name, {"photo": figures(shares[name], num)}) for name in names]
    told = below_start_text(ladder(*rungs, losses=(step,)))
    assert bool(told) is is_told
    assert told.startswith("student below its start (95.0% -> 90.0% of 900 pictures)"[: len(told)])


def test_figures_on_surrogates_are_agreement_and_never_accuracy() -> None:
    rungs = (rung(n, {HELDOUT_DOMAIN: f}) for n, f in zip(NAMES, SURROGATES, strict=True))
    text = shown(ladder(*rungs, metric="agreement"))
    assert text.startswith("agreement with the teacher (no accuracy: nothing is labelled)")
    assert "top-1" not in text
    assert "61.2%" in text
    assert "99.9%" not in text


def test_labelled_pictures_have_accuracy_and_the_surrogates_beside_them_have_not() -> None:
    parts = zip(NAMES, SURROGATES, PICTURES, strict=True)
    rungs = (rung(n, {HELDOUT_DOMAIN: made, "photo": taken}) for n, made, taken in parts)
    accuracy, agreement = shown(ladder(*rungs, mean_over=("photo",))).split("agreement")
    assert accuracy.startswith("top-1 accuracy")
    assert "surrogates" not in accuracy
    assert all(share in accuracy for share in ("75.1%", "61.2%", "68.3%"))
    assert all(share in agreement for share in ("92.3%", "53.2%"))


@pytest.mark.slow
@pytest.mark.usefixtures("few_images")
def test_a_dry_run_says_that_a_run_is_finished_unless_it_would_be_made_anew(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_run.parents[1])
    files = ("--config", tiny_run / "config.toml", "--classes", tiny_run / "classes.txt")
    again = ("distill", *files, "-o", tiny_run, "--dry-run", "--json")
    assert json.loads(invoke(*again).stdout)["is_finished"] is True
    assert json.loads(invoke(*again, "--no-resume").stdout)["is_finished"] is False


def test_a_finished_run_says_that_another_device_was_not_used(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_run.parents[1])
    files = ("--config", tiny_run / "config.toml", "--classes", tiny_run / "classes.txt")
    again = ("distill", *files, "-o", tiny_run, "--json")
    said = invoke(*again, "--device", "cuda").stderr
    assert "finished on cpu, and shown again: --device cuda was not used" in said
    assert "was not used" not in invoke(*again).stderr
