"""Licences of teachers, decoders and pipelines."""

from pathlib import Path

import open_clip
import pytest

from dfkd_edge.config.settings import PipelineConfig, TeacherConfig
from dfkd_edge.networks.licences import (
    APPLE,
    NO_WEIGHTS,
    NON_COMMERCIAL,
    OPEN_RAIL,
    OWN,
    STABILITY,
    UNKNOWN,
    licence_of,
    licences_of,
)

UNSTATED = {"yfcc15m", "cc12m"}
"""open_clip's own releases, whose pages state no licence of the weights."""


@pytest.mark.parametrize(
    ("model", "tag", "terms"),
    [
        ("mini", "", OWN),
        ("pixels", "", NO_WEIGHTS),
        ("ViT-B-32", "openai", "MIT"),
        ("ViT-B-32", "laion2b_s34b_b79k", "MIT"),
        ("ViT-B-16", "datacomp_xl_s13b_b90k", "MIT"),
        ("ViT-L-14-CLIPA", "datacomp1b", "Apache-2.0"),
        ("ViTamin-L", "datacomp1b", "MIT"),
        ("EVA02-E-14", "laion2b_s4b_b115k", "MIT"),
        ("ViT-B-32-quickgelu", "metaclip_400m", NON_COMMERCIAL),
        ("ViT-B-16", "dfn2b", APPLE),
        ("MobileCLIP2-S0", "dfndr2b", APPLE),
        ("MobileCLIP-S1", "datacompdr", APPLE),
        ("nllb-clip-base-siglip", "v1", NON_COMMERCIAL),
        ("ViT-B-16-SigLIP2", "webli", "Apache-2.0"),
        ("hf-hub:apple/DFN5B-CLIP-ViT-H-14", "", APPLE),
        ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "", "MIT"),
        ("amused/amused-256/vqvae", "", OPEN_RAIL),
        ("stabilityai/sd-turbo", "", STABILITY),
        ("hf-hub:somebody/siglip-of-my-own", "", UNKNOWN),
    ],
)
def test_known_models_have_their_makers_terms(model: str, tag: str, terms: str) -> None:
    assert licence_of(model, tag) == terms


def test_every_tag_of_open_clip_is_known_or_said_to_be_unknown() -> None:
    unknown = {
        tag for model, tag in open_clip.list_pretrained() if licence_of(model, tag) == UNKNOWN
    }

    assert unknown == UNSTATED


def test_a_folder_speaks_for_itself_whatever_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "openai"
    folder.mkdir()
    assert licence_of(str(folder)) == UNKNOWN

    (folder / "LICENSE").write_text("\n# Some Research Licence\n\ntext\n", encoding="utf-8")
    assert licence_of(str(folder)) == "Some Research Licence"

    card = "---\ntags:\n- clip\nlicense: other\nlicense_name: 'apple-amlr'\n---\n# Card\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    assert licence_of(str(folder)) == "apple-amlr"


def test_only_a_part_of_a_pipeline_asks_the_folder_above(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: openrail++\n---\n", encoding="utf-8")
    part = tmp_path / "vqvae"
    part.mkdir()
    assert licence_of(str(part)) == UNKNOWN

    (tmp_path / "model_index.json").write_text("{}", encoding="utf-8")
    assert licence_of(str(part)) == "openrail++"


def test_a_checkpoint_does_not_take_the_licence_that_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("MIT License", encoding="utf-8")
    file = tmp_path / "last.ckpt"
    file.touch()

    assert licence_of(str(file)) == UNKNOWN


def test_weights_of_a_file_do_not_take_the_terms_of_their_architecture(tmp_path: Path) -> None:
    file = tmp_path / "openai.pt"
    file.touch()
    config = PipelineConfig(teacher=TeacherConfig(name="ViT-B-16-SigLIP", pretrained=str(file)))

    assert [each.terms for each in licences_of(config)] == [UNKNOWN, OWN]
