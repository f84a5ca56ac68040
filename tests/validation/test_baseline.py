"""A small CLIP beside the student: on the same images, and no reason to train anything again."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import dfkd_edge
from dfkd_edge.errors import ConfigError
from dfkd_edge.files import file_hash
from dfkd_edge.networks.baseline import baseline_config
from dfkd_edge.pipeline import DistillResult
from dfkd_edge.results.kept import EVALUATION, read_ladder
from tests.fixtures.command import invoke
from tests.fixtures.exported import TINY_DISTILL
from tests.report.pages import Page

TEMPLATES = ("a photo of a {}",)


@pytest.fixture
def place(tiny_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(shutil.copytree(tiny_workspace, tmp_path / "place", symlinks=True))
    monkeypatch.chdir(folder)
    return folder


def distilled(baseline: str, data: str = "pictures") -> DistillResult:
    return dfkd_edge.distill(
        "classes.txt", data=data, baseline=baseline, quiet=True, **TINY_DISTILL
    )


@pytest.mark.usefixtures("few_images")
def test_a_baseline_comes_later_without_another_training_and_heads_the_report(
    place: Path, small_tower: Callable[[str], Path]
) -> None:
    weights = next((place / "runs").glob("*/student/student.safetensors"))
    before = (file_hash(weights), weights.stat().st_mtime_ns)
    result = distilled(str(small_tower("mobileclip")))
    assert (file_hash(weights), weights.stat().st_mtime_ns) == before
    found, student = result.evaluation.baseline, result.evaluation.rung("student")
    assert found is not None
    counts = {name: part.num_images for name, part in student.domains.items()}
    assert {name: part.num_images for name, part in found.rung.domains.items()} == counts
    gain = result.evaluation.mean(student) - result.evaluation.mean(found.rung)
    assert -found.loss.drop == pytest.approx(gain)
    assert found.rung.size_bytes == 4 * found.num_parameters > 0
    assert min(found.rung.onnx_latency_ms or 0, found.student_latency_ms or 0) > 0
    page = Page((result.run_dir / "report.html").read_text(encoding="utf-8"))
    first = page.text.index(f"top-1 of the student beside {found.title}")
    assert first < page.text.index("top-1, measured by")  # the caption of the ladder's table
    assert read_ladder(result.run_dir / EVALUATION) == result.evaluation


@pytest.mark.usefixtures("few_images")
def test_without_labels_the_comparison_says_that_it_flatters_the_student(
    place: Path, small_tower: Callable[[str], Path]
) -> None:
    text = f'classes = "classes.txt"\nbaseline = "{small_tower("clip")}"\n'
    (place / "run.toml").write_text(text, encoding="utf-8")
    tiny = ("--steps", "2", "--batch-size", "8", "--num-styles", "2")
    names = {"prompts.num_iterations": 1, "synthesis.num_images": 32}
    names |= {"synthesis.num_sampling_steps": 1, "synthesis.num_refinement_steps": 0}
    settings = [part for name, value in names.items() for part in ("--set", f"{name}={value}")]
    result = invoke("distill", "--config", "run.toml", *tiny, *settings)
    assert result.exit_code == 0, result.exception
    assert " points (" in next(line for line in result.stdout.splitlines() if "baseline" in line)
    page = (place / "runs" / "latest" / "report.html").read_text(encoding="utf-8")
    assert "it flatters the student beside any other CLIP" in page


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("MobileCLIP2-S9", "(--baseline): did you mean MobileCLIP2-S"),
        ("MobileCLIP2-S0:mine", "no weights 'mine' for MobileCLIP2-S0 (--baseline)"),
        ("ViT-B-32", "ViT-B-32 has several weights (--baseline): name one as ViT-B-32:TAG"),
    ],
)
def test_a_baseline_that_is_none_is_refused_with_what_there_is(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        baseline_config(name, TEMPLATES)
    assert said in str(refused.value)


def test_the_only_weights_of_a_name_need_no_tag() -> None:
    assert baseline_config("MobileCLIP2-S0", TEMPLATES).pretrained == "dfndr2b"
    assert baseline_config("ViT-B-32:openai", TEMPLATES).pretrained == "openai"
