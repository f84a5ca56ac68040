"""The model card of a bundle holds whatever names a user gives."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # comes with huggingface_hub

from dfkd_edge.bundles.bundle import OWN_NAMES, BundleContents, write_bundle
from dfkd_edge.bundles.model_card import escaped, licenses_text, model_card
from dfkd_edge.config.settings import PipelineConfig, SynthesisConfig, TeacherConfig
from dfkd_edge.networks.licences import licences_of
from dfkd_edge.results.ladder import Ladder
from dfkd_edge.results.wording import Metric
from dfkd_edge.target_profiles.lookup import load_target
from tests.fixtures.ladders import figures, gate, ladder, rung
from tests.fixtures.typed import student_settings

EVIL = 'a": [b] <script>| `c`\n---\n# d'
HIDDEN = "a\x7fb\u202ec\udc80"  # YAML refuses the first; folders may be called so


def measured(metric: Metric = "top1") -> Ladder:
    part = figures(0.5, 1_670, agreement=0.75)
    return ladder(
        *(rung(name, {EVIL: part}) for name in ("teacher", "onnx-int8")),
        metric=metric,
        notes=(f"holds {EVIL}",),
        images=f"pictures in {EVIL}",
        gate=gate(domain=EVIL),
    )


def front_matter(card: str) -> dict[str, Any]:
    match = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert match
    document: dict[str, Any] = yaml.safe_load(match[1])
    return document


def card_of(ladder: Ladder, student: str = "mini", teacher: str = "mini") -> str:
    settings = student_settings(student=student, teacher=teacher, classes=("dog", EVIL))
    sources = licences_of(PipelineConfig(teacher=TeacherConfig(name=teacher)))
    return model_card(settings, sources, load_target("jetson"), "int8", ladder)


def test_the_front_matter_holds_what_the_hub_reads() -> None:
    front = front_matter(card_of(measured()))
    assert front["license"] == "apache-2.0"
    assert front["library_name"] == "onnx"
    assert front["pipeline_tag"] == "image-classification"
    assert {"int8", "orin"} <= set(front["tags"])
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"]["name"] == EVIL
    assert result["metrics"][0]["value"] == 0.5
    for changed in ("student", "teacher"):  # weights of others have terms of their own
        assert front_matter(card_of(measured(), **{changed: "other"}))["license"] == "other"


def test_card_and_licences_name_the_terms_of_teacher_and_pipeline() -> None:
    config = PipelineConfig(
        teacher=TeacherConfig(name="ViT-B-16", pretrained="dfn2b"),
        synthesis=SynthesisConfig(method="diffusion", pipeline="stabilityai/sd-turbo"),
    )
    sources, settings = licences_of(config), student_settings(teacher="ViT-B-16")
    card = model_card(settings, sources, load_target("jetson"), "int8", measured())
    for text in (card.replace("\\", ""), licenses_text(settings, sources)):
        assert "teacher ViT-B-16 dfn2b: Apple Machine Learning Research Model" in text
        assert "pipeline stabilityai/sd-turbo: Stability AI's community licence" in text


def test_agreement_is_not_pushed_as_accuracy() -> None:
    card = card_of(measured("agreement"))
    assert "model-index" not in front_matter(card)
    assert "75.0%" in card


def test_names_cannot_become_markup() -> None:
    body = card_of(measured()).split("\n---\n", 1)[1]
    assert "<script>" not in body.replace("\\<", "")
    assert "\n---" not in body
    assert "\n# d" not in body
    assert re.sub(r"\\(.)", r"\1", escaped(EVIL)) == " ".join(EVIL.split())


def test_hidden_characters_are_escaped_and_break_no_front_matter() -> None:
    part = figures(0.5, 1_670, agreement=0.75)
    rungs = (rung(name, {HIDDEN: part}) for name in ("teacher", "onnx-int8"))
    card = card_of(ladder(*rungs, metric="top1", gate=gate(domain=HIDDEN)))
    (result,) = front_matter(card)["model-index"][0]["results"]
    assert result["dataset"]["name"] == HIDDEN
    assert not set(HIDDEN) - set("abc") & set(card)


def test_a_card_begins_with_a_gate_that_failed_and_lists_what_a_bundle_holds() -> None:
    passed = measured()
    assert passed.gate
    failed = dataclasses.replace(passed, gate=dataclasses.replace(passed.gate, passed=False))
    assert card_of(failed).split("\n---\n", 1)[1].lstrip().startswith("**Gate: FAILED: ")
    card = card_of(passed)
    assert "FAILED" not in card
    listed = card.split("## What lies here")[1].split("On a host")[0]
    named = set(re.findall(r"[\w.*]+\.\w+|runtimes", listed))
    assert named - {"model.*.onnx"} <= OWN_NAMES
    assert {"runtimes", "recipe.md", "build.sh", "model.sig", "sbom.cdx.json"} <= named


def test_the_card_is_a_file_of_the_bundle(tmp_path: Path, tiny_contents: BundleContents) -> None:
    for card in ("# one\n", ""):
        bundle = write_bundle(tmp_path / "b", dataclasses.replace(tiny_contents, card=card))
        assert ("README.md" in bundle.manifest.files) is bool(card)
        assert (bundle.folder / "README.md").exists() is bool(card)
