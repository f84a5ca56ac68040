from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dfkd_edge.class_names import parse_class_names
from dfkd_edge.config import TeacherConfig
from dfkd_edge.errors import ConfigError
from dfkd_edge.interfaces import StageContext, SynthesisBatch
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.decoder import SCALE_SUFFIX, from_eight_bits
from dfkd_edge.synthesis.exemplars import (
    RetrievalSynthesizer,
    Sheet,
    near_drawings,
    on_background,
    placed,
    read_sheets,
    recognised_drawings,
)
from dfkd_edge.teacher import Teacher, load_teacher

NEVER_NAMED = ("octopus", "helicopter", "unicorn", "snowman")
"""Some of the categories that measure what the memory does not hold."""


def make_memory(folder: Path, names: list[str], side_px: int = 4) -> tuple[Sheet, ...]:
    """Write a memory of opaque tiles, two columns, whose red channel is their number."""
    num_rows = -(-len(names) // 2)
    pixels = np.zeros((num_rows * side_px, 2 * side_px, 4), np.uint8)
    for number in range(len(names)):
        row, column = divmod(number, 2)
        tile = pixels[row * side_px : (row + 1) * side_px, column * side_px :][:, :side_px]
        tile[:] = (number, 50, 100, 255)
    Image.fromarray(pixels).save(folder / "drawn.webp", lossless=True)
    index = {"side_px": side_px, "num_columns": 2, "names": {"drawn": names}}
    (folder / "exemplars.json").write_text(json.dumps(index))
    return read_sheets(folder)


def test_a_sheet_gives_the_drawings_that_are_asked_for(tmp_path: Path) -> None:
    (sheet,) = make_memory(tmp_path, ["dog", "cat", "owl"])
    cut = sheet.drawings(np.array([2, 0]))
    assert cut.shape == (2, 4, 4, 4)
    assert [int(tile[..., 0].min()) for tile in cut] == [2, 0]
    assert [int(tile[..., 0].max()) for tile in cut] == [2, 0]


def test_a_missing_memory_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="incomplete") as caught:
        read_sheets(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_the_shipped_memory_is_whole_and_names_nothing_that_is_held_out() -> None:
    sheets = read_sheets()
    for sheet in sheets:
        with Image.open(sheet.path) as picture:
            width, height = picture.size
        assert width == sheet.num_columns * sheet.side_px
        assert height == -(-len(sheet.names) // sheet.num_columns) * sheet.side_px
    styles = {sheet.path.stem for sheet in sheets}
    assert styles.isdisjoint({"openmoji", "streamline-emojis", "emojione-monotone"})
    names = {name for sheet in sheets for name in sheet.names}
    assert not [name for name in names if set(name.split()) & set(NEVER_NAMED)]


def test_each_class_gets_the_drawings_named_nearest_to_it(
    teacher: Teacher, context: StageContext, tmp_path: Path
) -> None:
    sheets = make_memory(tmp_path, ["house", "dog", "dog face", "volcano", "person", "dog"])
    dog, house, person = near_drawings(sheets, teacher, context.reporter)
    assert dog == [(0, 1), (0, 5), (0, 2)]
    assert house == [(0, 0)]
    assert person == [(0, 4)]


def test_the_teacher_sees_its_class_in_every_drawing_that_is_kept(context: StageContext) -> None:
    classes = parse_class_names("guitar\noctopus\npenguin", "three classes")
    teacher = load_teacher(TeacherConfig(), classes)
    guitar, octopus, penguin = recognised_drawings(teacher, context.reporter)
    assert len(octopus) == 0
    for label, drawings in ((0, guitar), (2, penguin)):
        assert len(drawings) >= 8
        white = torch.ones(len(drawings), 3, 64, 64)
        image = drawings[:, :3] / 255 * (drawings[:, 3:] / 255) + white * (
            1 - drawings[:, 3:] / 255
        )
        with torch.no_grad():
            resized = torch.nn.functional.interpolate(image, (teacher.image_size_px,) * 2)
            seen = teacher.logits(teacher.embed_images(resized)).argmax(1)
        assert float((seen == label).float().mean()) > 0.7


def test_backgrounds_show_where_a_drawing_is_transparent_and_symbols_take_colours() -> None:
    drawing = torch.zeros(40, 4, 8, 8)
    drawing[:, 3, 2:6, 2:6] = 1  # a black square
    image = on_background(drawing, torch.Generator().manual_seed(0))
    assert float(image.min()) >= 0
    assert float(image.max()) <= 1
    assert bool((image[:, :, 0, 0] >= 0.2).all())
    centre = image[:, :, 3, 3]
    assert len(centre.unique(dim=0)) > 10  # symbols of one colour take others
    drawing[:20, 0, 2:6, 2:6], drawing[20:, 1, 2:6, 2:6] = 1, 0.5
    drawing[:, 2, 3, 3] = 1  # of several colours: stay as they are
    kept = on_background(drawing, torch.Generator().manual_seed(0))[:, :, 2:6, 2:6]
    torch.testing.assert_close(kept, drawing[:, :3, 2:6, 2:6])


def test_no_two_placed_drawings_are_alike_and_colours_stay() -> None:
    drawing = torch.zeros(1, 4, 64, 64)
    drawing[:, 1, 16:48, 16:48] = drawing[:, 3, 16:48, 16:48] = 1  # a green square
    moved = placed(drawing.expand(50, -1, -1, -1), 96, torch.Generator().manual_seed(0))
    assert moved.shape == (50, 4, 96, 96)
    assert len(moved.flatten(1).unique(dim=0)) == 50
    inside = moved[:, 3] > 0.5
    assert bool(((inside.sum((1, 2)) > 0.3 * 48**2) & (inside.sum((1, 2)) <= 49**2)).all())
    colour = moved[:, :3].permute(0, 2, 3, 1)[moved[:, 3] > 0.01]
    torch.testing.assert_close(colour, torch.tensor([0.0, 1.0, 0.0]).expand_as(colour))


class Plain:
    """Makes grey images and counts them; what it makes may look like the next class."""

    def __init__(self, teacher: Teacher, shift: int = 0) -> None:
        self.labels: list[int] = []
        self.head_KD = teacher.head_KD.roll(-shift, 0)

    def __call__(self, batch: SynthesisBatch) -> tuple[Tensor, Tensor]:
        self.labels += batch.label_N.tolist()
        return torch.full((len(batch.label_N), 3, 32, 32), 0.5), self.head_KD[batch.label_N]


def test_a_share_of_the_images_comes_from_drawings_and_the_seed_decides_which(
    teacher: Teacher,
) -> None:
    many = torch.zeros(12, 4, 64, 64, dtype=torch.uint8)
    drawings = (many, many[:2], many[:0])
    label_N = torch.arange(3).repeat(100)
    images = []
    for seed in (0, 0, 1):
        inner = Plain(teacher)
        synthesizer = RetrievalSynthesizer(inner, drawings, teacher, 0.5, 32)
        generator = stage_generator(seed, "x")
        batch = SynthesisBatch(
            teacher.head_KD[label_N], label_N, torch.zeros_like(label_N), generator
        )
        image, embedding = synthesizer(batch)
        is_grey = (image == 0.5).flatten(1).all(1)
        counts = [int((~is_grey & (label_N == label)).sum()) for label in range(3)]
        assert 35 <= counts[0] <= 65  # the share
        assert 4 <= counts[1] <= 25  # two of eight drawings: a quarter of the share
        assert counts[2] == 0
        assert inner.labels == label_N[is_grey].tolist()
        torch.testing.assert_close(embedding[is_grey], teacher.head_KD[label_N[is_grey]])
        images.append(image)
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_what_the_teacher_misses_is_drawn_where_there_are_enough_drawings(
    teacher: Teacher,
) -> None:
    many = torch.zeros(12, 4, 64, 64, dtype=torch.uint8)
    inner = Plain(teacher, shift=1)
    synthesizer = RetrievalSynthesizer(inner, (many, many[:4], many[:0]), teacher, 0.0, 32)
    label_N = torch.arange(3).repeat(100)
    batch = SynthesisBatch(
        teacher.head_KD[label_N], label_N, torch.zeros_like(label_N), stage_generator(0, "x")
    )
    image, _ = synthesizer(batch)
    is_grey = (image == 0.5).flatten(1).all(1)
    assert len(inner.labels) == 300
    drawn = [int((~is_grey & (label_N == label)).sum()) for label in range(3)]
    assert drawn[0] == 100
    assert 35 <= drawn[1] <= 65
    assert drawn[2] == 0


def test_eight_bit_weights_come_back_within_half_a_step() -> None:
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    scale = weight.flatten(1).abs().amax(1) / 127
    stored = (weight / scale.view(-1, 1, 1, 1)).round().to(torch.int8)
    bias = torch.ones(6)
    found = from_eight_bits({"w": stored, "w" + SCALE_SUFFIX: scale, "b": bias})
    assert set(found) == {"w", "b"}
    assert bool(((found["w"] - weight).abs() <= scale.view(-1, 1, 1, 1) / 2 + 1e-6).all())
    assert found["b"] is bias
