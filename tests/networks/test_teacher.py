import dataclasses
import fractions
import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_model

from dfkd_edge.class_names import ClassNames, parse_class_names
from dfkd_edge.config.settings import PromptConfig, TeacherConfig
from dfkd_edge.errors import ConfigError, DfkdEdgeError, EnvironmentLackingError
from dfkd_edge.networks.teacher import Teacher, activation_options, encode_text, load_teacher
from dfkd_edge.prompts import diversify_prompts
from dfkd_edge.runs.context import StageContext


def test_the_assets_stay_within_their_size() -> None:
    assets = Path(str(files("dfkd_edge.assets")))
    sizes = {p: p.stat().st_size for p in assets.rglob("*") if p.is_file()}
    assert sum(sizes.values()) <= 60e6
    assert sum(s for p, s in sizes.items() if p.parent.name == "teacher") <= 32e6


def test_embeddings_are_unit_rows(teacher: Teacher) -> None:
    image = torch.rand(3, 3, 80, 100, generator=torch.Generator().manual_seed(0))
    for embedding in (teacher.embed_images(image), teacher.embed_texts(["dog", "a red car"])):
        assert embedding.shape[1] == teacher.embed_dim
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(len(embedding)))
    tokens = teacher.tokenise(["dog"])
    for part in (tokens, tokens[:, :-1]):  # the whole context, and less
        torch.testing.assert_close(encode_text(teacher.model, part).norm(dim=1), torch.ones(1))


@pytest.mark.parametrize("kind", ["mini", "clip", "mobileclip", "siglip"])
def test_any_open_clip_class_is_a_teacher_and_embeds_a_text_as_with_its_whole_context(
    kind: str, teacher: Teacher, classes: ClassNames, small_tower: Callable[[str], Path]
) -> None:
    if kind != "mini":
        teacher = load_teacher(TeacherConfig(name=str(small_tower(kind))), classes)
    model: Any = teacher.model
    for texts in (["dog"], ["dog", "a photo of a big red house in the cold"], ["dog " * 90]):
        whole_ND = model.encode_text(teacher.tokenise(texts), normalize=True)
        torch.testing.assert_close(teacher.embed_texts(texts), whole_ND)
    assert teacher.embed_texts([]).shape == (0, teacher.embed_dim)
    image = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    assert teacher.logits(teacher.embed_images(image)).shape == (2, 3)


def test_related_names_are_nearer_than_unrelated_ones(teacher: Teacher) -> None:
    near = [("hammer", "screwdriver"), ("apple", "pear"), ("violin", "cello"), ("bus", "truck")]
    far = [("hammer", "pear"), ("apple", "bus"), ("violin", "truck"), ("bus", "cello")]

    def cosine(pairs: list[tuple[str, str]]) -> list[float]:
        one, two = (teacher.embed_texts([pair[k] for pair in pairs]) for k in (0, 1))
        return [float(c) for c in (one * two).sum(1)]

    assert min(cosine(near)) > max(cosine(far))


def test_drawn_hearts_and_stars_are_told_apart() -> None:
    """Open vocabulary on real pixels: shapes drawn here, names from no fixed list."""
    heart, star = Image.new("RGB", (128, 128), "white"), Image.new("RGB", (128, 128), "white")
    draw = ImageDraw.Draw(heart)
    draw.ellipse((20, 25, 68, 73), fill="red")
    draw.ellipse((60, 25, 108, 73), fill="red")
    draw.polygon([(24, 60), (104, 60), (64, 110)], fill="red")
    angle = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 52, 21)
    points = np.stack((64 + radius * np.cos(angle), 66 + radius * np.sin(angle)), 1)
    ImageDraw.Draw(star).polygon([(float(x), float(y)) for x, y in points], fill="gold")
    image = torch.from_numpy(np.stack([np.asarray(heart), np.asarray(star)]))
    judge = load_teacher(TeacherConfig(), parse_class_names("heart\nstar\n", "x"))
    logits = judge.logits(judge.embed_images(image.permute(0, 3, 1, 2) / 255))
    assert logits.argmax(1).tolist() == [0, 1]


def test_a_local_open_clip_folder_gives_the_embedded_teacher(
    tmp_path: Path, teacher: Teacher, classes: ClassNames
) -> None:
    source = Path(str(files("dfkd_edge.assets"))) / "teacher"
    settings = json.loads((source / "dfkd-mini.json").read_text(encoding="utf-8"))
    document = {"model_cfg": settings, "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(document), encoding="utf-8")
    shutil.copy(source / "dfkd-mini.safetensors", tmp_path / "open_clip_model.safetensors")
    local = load_teacher(TeacherConfig(name=str(tmp_path)), classes)
    torch.testing.assert_close(local.head_KD, teacher.head_KD)
    other = load_teacher(TeacherConfig(name=str(tmp_path), activation="quickgelu"), classes)
    assert not torch.allclose(other.head_KD, teacher.head_KD)


@pytest.mark.parametrize(
    ("name", "tag", "is_quick"),
    [
        ("ViT-B-32", "openai", True),
        ("ViT-L-14", "dfn2b", True),
        ("ViT-B-32", "laion2b_s34b_b79k", False),
        ("roberta-ViT-B-32", "laion2b_s12b_b32k", False),
    ],
)
def test_the_tag_of_the_weights_says_their_activation(name: str, tag: str, is_quick: bool) -> None:
    config = TeacherConfig(name=name, pretrained=tag)
    assert activation_options(config) == {"quick_gelu": is_quick}


def test_a_weight_file_that_may_be_of_either_activation_is_asked_about() -> None:
    config = TeacherConfig(name="ViT-B-32", pretrained="clip.safetensors")
    with pytest.raises(ConfigError, match="activation=quickgelu"):
        activation_options(config)
    told = dataclasses.replace(config, activation="gelu")
    assert activation_options(told) == {"quick_gelu": False}


@pytest.mark.parametrize(
    ("name", "pretrained", "error", "said"),
    [
        ("ViT-B-23", "", ConfigError, "ViT-B-32"),  # the nearest name
        ("ViT-B-32", "", ConfigError, "laion2b_s34b_b79k"),  # the tags that there are
        ("ViT-B-32", "laion2b_s34b_b97k", ConfigError, "laion2b_s34b_b79k"),
        ("ViT-B-16-SigLIP", "missing.safetensors", EnvironmentLackingError, "missing"),
    ],
)
def test_a_teacher_that_cannot_be_loaded_is_refused_with_what_there_is(
    name: str, pretrained: str, error: type[DfkdEdgeError], said: str, classes: ClassNames
) -> None:
    with pytest.raises(error, match=said):
        load_teacher(TeacherConfig(name=name, pretrained=pretrained), classes)


Weights = dict[str, torch.Tensor]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda w: w["visual.proj"].fill_(torch.inf), "numbers that are not finite"),
        (lambda w: [tensor.zero_() for tensor in w.values()], "all class names are the same to it"),
        (lambda w: w.pop("visual.proj"), r"Missing key\(s\) in state_dict: .visual.proj"),
        (lambda w: w.update(visual=fractions.Fraction(1)), "tensors alone: .*Fraction"),
    ],
)
def test_weights_that_would_teach_nothing_are_refused_with_the_reason(
    damage: Callable[[Weights], object],
    said: str,
    small_tower: Callable[[str], Path],
    tmp_path: Path,
    classes: ClassNames,
) -> None:
    shutil.copy(small_tower("clip") / "open_clip_config.json", tmp_path)
    weights = load_file(small_tower("clip") / "open_clip_model.safetensors")
    damage(weights)
    torch.save(weights, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(DfkdEdgeError, match=said):
        load_teacher(TeacherConfig(name=str(tmp_path)), classes)


def test_a_teacher_of_pictures_that_are_no_squares_is_refused(
    small_tower: Callable[[str], Path], tmp_path: Path, classes: ClassNames
) -> None:
    folder = shutil.copytree(small_tower("clip"), tmp_path / "t")
    settings = folder / "open_clip_config.json"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(
        text.replace('"image_size": 32', '"image_size": [32, 64]'), encoding="utf-8"
    )
    with pytest.raises(DfkdEdgeError, match="pictures of 64 x 32, which are no squares"):
        load_teacher(TeacherConfig(name=str(folder)), classes)


@pytest.mark.slow
def test_a_full_size_teacher_takes_a_step_of_prompts_and_embeds(
    tmp_path: Path, classes: ClassNames, context: StageContext
) -> None:
    """ViT-B/32 itself, with random weights, saved and loaded as a file."""
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32", load_weights=False)
    weights = tmp_path / "vit.safetensors"
    save_model(model, str(weights))
    config = TeacherConfig(
        name="ViT-B-32", pretrained=str(weights), activation="gelu", templates=("{}",)
    )
    teacher = load_teacher(config, classes)
    prompts = diversify_prompts(teacher, PromptConfig(num_styles=2, num_iterations=1), context)
    assert prompts.embeddings.shape == (6, 512)
    assert teacher.embed_images(torch.rand(1, 3, 224, 224)).shape == (1, 512)
