"""What can teach: the table says what open_clip itself says, and is shown without torch."""

import json
import subprocess
import sys
from typing import Any

import open_clip
import pytest

from dfkd_edge.config.settings import MINI, TeacherConfig
from dfkd_edge.networks.licences import UNKNOWN
from dfkd_edge.networks.teacher import activation_options, open_clip_name
from dfkd_edge.networks.teacher_table import (
    FAMILIES,
    RECOMMENDED,
    family_of,
    known_teachers,
)
from dfkd_edge.networks.weights import shapes_of_teacher
from tests.fixtures.command import call

IN_NO_OPEN_CLIP = {"TinyCLIP"}
HUB_ONLY = {"roberta-ViT-B-32", "xlm-roberta-base-ViT-B-32", "xlm-roberta-large-ViT-H-14"}
"""Their text towers are described on the hub, so they cannot be counted without network."""


def listed(*arguments: str) -> list[dict[str, Any]]:
    code, output, _ = call("teachers", "list", *arguments, "--json")
    assert code == 0
    rows: list[dict[str, Any]] = json.loads(output)["teachers"]
    return rows


def test_every_family_that_open_clip_has_is_listed_with_each_of_its_tags() -> None:
    rows = known_teachers()
    assert {row.family for row in rows} - {"dfkd-edge"} == {
        f for f, _ in FAMILIES
    } - IN_NO_OPEN_CLIP
    there = {
        (name, tag)
        for name, tag in open_clip.list_pretrained()
        if family_of(name, tag) and not name.endswith("-quickgelu") and name not in HUB_ONLY
    }
    assert {(row.name, row.tag) for row in rows} == there | {(MINI, "")}
    assert not [row for row in rows if row.licence == UNKNOWN]


@pytest.mark.parametrize("name", [MINI, "MobileCLIP2-S0", "RN50", "ViT-B-32", "ViT-B-16-SigLIP2"])
def test_a_row_of_the_table_is_what_its_architecture_counts(name: str) -> None:
    for row in (row for row in known_teachers() if row.name == name):
        config = TeacherConfig(name=name, pretrained=row.tag)
        is_quick = bool(activation_options(config).get("quick_gelu"))
        assert row.activation == ("quickgelu" if is_quick else "gelu"), row.tag
    model: Any = shapes_of_teacher(open_clip_name(TeacherConfig(name=name, pretrained=row.tag))[0])
    assert row.num_parameters == sum(p.numel() for p in model.parameters())
    assert row.num_image_parameters == sum(p.numel() for p in model.visual.parameters())
    side = model.visual.image_size
    assert row.image_size_px == (side if isinstance(side, int) else side[0])


def test_newcomers_are_told_what_fits_a_small_card_and_may_be_used_for_anything() -> None:
    recommended = [row for row in known_teachers() if row.advice]
    assert {(row.name, row.tag) for row in recommended} == set(RECOMMENDED)
    assert all(row.licence.startswith(("MIT", "Apache-2.0")) for row in recommended)
    cards = {(row.name, row.card_gb) for row in recommended}
    assert {("ViT-B-32", 8), ("ViT-L-14", 16)} <= cards
    _, output, _ = call("teachers", "list", "laion2b_s34b_b79k")
    assert "the teacher of --preset clip-b32" in " ".join(output.split())


def test_a_word_finds_names_tags_and_makers_and_small_towers_come_first() -> None:
    assert {row["family"] for row in listed("mobileCLIP2")} == {"MobileCLIP2"}
    assert {row["tag"] for row in listed("openai")} == {"openai"}
    sizes = [row["num_image_parameters"] for row in listed()]
    assert sizes == sorted(sizes)
    code, _, errors = call("teachers", "list", "nobody")
    assert (code, "no teacher of the table has 'nobody'" in errors) == (2, True)


def test_the_flags_of_a_teacher_are_shown_whole_however_narrow_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    code, output, _ = call("teachers", "show", "vit-l-14")
    tags = [row.tag for row in known_teachers() if row.name == "ViT-L-14"]
    flags = [line.strip() for line in output.splitlines() if "--teacher" in line]
    assert (code, flags) == (0, [f"--teacher ViT-L-14 --pretrained {tag}" for tag in tags])
    assert "the teacher of --preset clip-l14" in output
    assert "  --teacher mini\n" in call("teachers", "show", MINI)[1]
    shown = json.loads(call("teachers", "show", "ViT-L-14", "--json")[1])["teachers"]
    assert [row["tag"] for row in shown] == tags
    code, _, errors = call("teachers", "show", "ViT-L14")
    assert (code, "did you mean ViT-L-14?" in errors) == (2, True)


def test_the_list_is_shown_without_torch() -> None:
    code = (
        "import sys; from dfkd_edge.cli import app\n"
        "app(['teachers', 'list'], standalone_mode=False)\n"
        "assert not {'torch', 'open_clip', 'timm', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
