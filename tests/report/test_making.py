"""What the page says of how a student was made: its images, its training, its conversion."""

import dataclasses
import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from dfkd_edge.artifacts import FewShotSummary, save_tensors
from dfkd_edge.bundles.bundle import BundleContents, write_bundle
from dfkd_edge.class_names import read_class_names
from dfkd_edge.config.file import to_toml
from dfkd_edge.config.settings import FewShotConfig, PipelineConfig
from dfkd_edge.errors import ArtifactError
from dfkd_edge.files import atomic_write
from dfkd_edge.preflight import run_name
from dfkd_edge.report import write_report
from dfkd_edge.report.blocks import Missing
from dfkd_edge.report.commands import exporting, exporting_again
from dfkd_edge.report.making import STYLE_NOTE, class_warnings, conversion_section
from dfkd_edge.report.reading import gather, read_bundle_source
from dfkd_edge.report.sources import ExportRecord
from dfkd_edge.results.ladder import Ladder
from dfkd_edge.runs.surrogates import selection_path
from dfkd_edge.runtime.bundle_files import Bundle
from tests.fixtures.files import edit_json
from tests.fixtures.typed import class_count, surrogate_summary
from tests.report.pages import EVIL, keep, missing, page_of


def test_images_are_counted_and_the_sheet_explains_its_styles_and_the_marks_that_it_has(
    run: Path,
) -> None:
    page = page_of(run)
    kept = "5 of 6 synthesized images were kept; 3 of them of drawings; 1 of them"
    assert not missing(page.text, kept, "differ by 0.500")
    assert page.text.count(STYLE_NOTE.format(name=EVIL)) == 2
    captions = page.values("data-caption")
    assert captions.count("house, of a drawing") == 1
    assert captions.count("dog & cat, style: ink' onload='x") == 1
    marked = [caption for caption in captions if caption.endswith("; taken for another class")]
    assert len(marked) == page.values("class").count("picture unsure") == 1
    assert page.values("class").count("none") == 1  # the rejected candidate
    assert not missing(page.text, "A dashed frame: ", "A dash: no image of that class and style")
    save_tensors(selection_path(run / "surrogates"), {"is_kept": np.arange(6) > 1})
    page = page_of(run)
    assert "picture unsure" not in page.values("class")
    assert page.values("class").count("none") == 2
    assert "A dashed frame" not in page.text


def test_the_drawings_of_each_class_are_named_first_of_those_of_another_name(run: Path) -> None:
    assert "named in the memory" not in page_of(run).text
    named = ({"<b>script": 9}, {"dog": 3, "cat": 2}, {"wheel": 6})
    classes = tuple(
        class_count(name, num_drawn=1, drawings=drawings, num_of_its_name=num)
        for name, drawings, num in zip((EVIL, "dog & cat", "house"), named, (9, 5, 0), strict=True)
    )
    surrogate_summary(classes=classes).save(run / "surrogates")
    text = page_of(run).text
    table = text.split("named in the memory")[1]
    assert table.index("wheel") < table.index("<b>script") < table.index("dog, cat")
    assert "most drawings are named after something else: house (wheel)" in text


def test_classes_whose_images_may_not_show_them_are_named() -> None:
    classes = [class_count("horse", num_drawn=3), class_count("yak", acceptance=0.4)]
    undrawn, unsure = class_warnings(classes, [])
    assert undrawn == "no drawing fits yak"
    assert "fewer than half of the candidates of yak: " in unsure
    assert class_warnings(classes[:1], []) == []
    assert class_warnings([class_count("horse")], []) == []  # no class is drawn: no memory


def test_real_pictures_are_told_with_what_they_gave_over_the_run_without_them(
    run: Path, evaluation: Ladder
) -> None:
    config = PipelineConfig(classes=EVIL, few_shot=FewShotConfig(images="shots"))
    atomic_write(run / "config.toml", to_toml(config))
    atomic_write(run / "classes.txt", "dog\nhouse\n")
    real = FewShotSummary(
        num_pictures=12, num_classes=2, num_copies=40, is_labelled=True, teacher_agreement=1,
        pictures={},
    )  # fmt: skip
    atomic_write(run / "few_shot" / "few_shot.json", json.dumps(dataclasses.asdict(real)))
    joined = "12 pictures of 2 classes joined, 40 times each"
    assert not missing(page_of(run).text, joined, "--set few_shot.images=")
    zero_shot = dataclasses.replace(config, few_shot=FewShotConfig())
    twin = run.parent / run_name(zero_shot, read_class_names(run / "classes.txt"))
    start, *_ = (rung for rung in evaluation.rungs if rung.name == "student-start")
    keep(twin, dataclasses.replace(evaluation, rungs=(*evaluation.rungs[:2], start)))
    assert "+55.0 points of mean top-1 over zero-shot" in page_of(run).text


def test_what_export_did_is_told(run: Path, tiny_contents: BundleContents) -> None:
    warning = {"rule": "reformat", "severity": "warning", "node": "conv7", "message": "7 channels"}
    repair = {"float_nodes": ["conv3"], "num_quantizable": 9, "num_graphs": 3}
    int8 = dataclasses.replace(tiny_contents.models["int8"], notes={"float_nodes": ["conv3"]})
    made = {"lint_warnings": [warning], "rescue": {"repair": repair, "finetune": None}}
    contents = dataclasses.replace(
        tiny_contents,
        models={**tiny_contents.models, "int8": int8},
        provenance={**made, "seconds": 200.0},
    )
    text = page_of(write_bundle(run.parent / "alone", contents).folder).text
    export = ("int8 for tiny-board", "minmax on 500 images", "3 min")
    mended = ("1 of 9 layers put back to float", "conv3")
    warned = ("1 lint warning for tiny-board", "reformat: conv7: 7 channels")
    assert not missing(text, *export, *mended, *warned)


@pytest.mark.parametrize(
    ("rescue", "notes"),
    [("again", {}), ({"repair": 1, "finetune": 2}, {}), (None, {"float_nodes": 5})],
)
def test_a_repair_of_another_form_is_one_line(
    rescue: object, notes: dict[str, object], tiny_bundle: Bundle
) -> None:
    path, made = tiny_bundle.folder / "manifest.json", tiny_bundle.manifest.provenance
    edit_json(path, provenance={**made, "rescue": rescue}, model_notes={"int8": notes})
    with pytest.raises(ArtifactError, match=r"file is damaged .*manifest\.json"):
        write_report(tiny_bundle.folder)


def test_the_printed_export_names_its_pictures_and_may_replace_the_bundle(
    tiny_bundle: Bundle,
) -> None:
    settings: dict[str, object] = {"target": "tiny", "max_drop": 0.5, "repair": True}
    record = ExportRecord(data="my pictures", config=settings)
    source = dataclasses.replace(read_bundle_source(tiny_bundle.folder), record=record)
    asked = "dfkd-edge export RUN --target tiny --set export.max_drop=0.5 --data 'my pictures'"
    output = shlex.quote(str(tiny_bundle.folder))
    assert exporting_again(source, "RUN") == f"{asked} --output {output} --exist-ok"


def test_a_page_of_a_run_of_few_images_names_no_export_that_would_be_refused(run: Path) -> None:
    sources = gather(run)
    assert exporting(sources).endswith("--precision fp16")
    lacking, helps = conversion_section(sources).blocks
    assert isinstance(lacking, Missing)
    assert "4 images to learn from" in lacking.what
    assert lacking.command.startswith("dfkd-edge distill --config")
    assert "--set synthesis.num_images=" in lacking.command
    assert "--output" not in lacking.command  # this run stays
    assert "--calib-data DIR" in str(helps)
