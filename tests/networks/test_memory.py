import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.interfaces import SynthesisBatch, SynthesizedImages
from dfkd_edge.networks import memory
from dfkd_edge.networks.draws import PartGenerator, drawn
from dfkd_edge.networks.memory import (
    Need,
    Parts,
    PeakBytes,
    in_parts,
    made_in_parts,
    measured_need,
    memory_budget,
    recorded_parts,
)
from dfkd_edge.runs.context import StageContext

LAYER = nn.Linear(64, 64, bias=False)
ROOM = 3  # Images that the small card of these tests holds


def on_small_card(rows: slice) -> list[int]:
    """Work that runs out of memory, as torch says it, with more images than there is room for."""
    if rows.stop - rows.start > ROOM:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return list(range(rows.start, rows.stop))


def test_parts_are_halved_until_they_fit_and_every_image_is_made_once_in_order() -> None:
    told: list[str] = []
    parts = Parts("decoding images", 16, "cpu", told.append)
    made = in_parts(11, parts, on_small_card)
    assert [number for rows in made for number in rows] == list(range(11))
    assert parts.size == 2  # halves of the 11 images that there were: 5, 2
    assert told == [
        f"  out of memory while decoding images: {num} images at a time now" for num in (5, 2)
    ]


def test_gradients_of_parts_add_up_to_that_of_the_whole_batch_and_begin_anew() -> None:
    layer, image = nn.Linear(4, 2), torch.rand(7, 4)
    layer(image).square().sum().backward()
    whole, calls = layer.weight.grad, 0
    layer.zero_grad()

    def backward(rows: slice) -> None:
        nonlocal calls
        calls += 1
        layer(image[rows]).square().sum().backward()
        if calls == 2:  # after its gradients were added
            raise torch.OutOfMemoryError("out of memory")

    in_parts(7, Parts("training", 4, "cpu"), backward, layer.zero_grad)
    torch.testing.assert_close(layer.weight.grad, whole)


def test_a_device_that_is_too_small_for_one_image_is_one_clear_error() -> None:
    def never(rows: slice) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.\nmore")

    with pytest.raises(
        EnvironmentLackingError, match=r"one image while x: .* 9\.00 GiB\."
    ) as found:
        in_parts(4, Parts("x", 4, "cpu"), never)
    assert "\n" not in str(found.value)
    assert "--dry-run" in found.value.hint
    assert found.value.exit_code == 4


def test_a_run_keeps_the_size_of_its_parts_and_the_smallest_one_counts(
    context: StageContext,
) -> None:
    def found_as(size: int, key: str = "key") -> Parts:
        return recorded_parts("decoding images", "surrogates", key, context, lambda: size)

    first, other = found_as(8), found_as(99)
    assert (first.size, other.size) == (8, 8)
    first.halve(8, "")
    first.halve(4, "")
    other.halve(8, "")
    assert other.size == found_as(99).size == 2
    assert found_as(5, "of other settings").size == 5
    folder = context.run_dir.path / "surrogates"
    (record,) = folder.glob("*.json")
    assert json.loads(record.read_text())["images"] == 5
    record.write_text("{")
    assert found_as(7).size == 7


def test_the_peak_is_of_what_lives_at_once() -> None:
    def work(num: int) -> Tensor:
        image = torch.ones(num, 64, requires_grad=True)
        (gradient,) = torch.autograd.grad(LAYER(image).square().sum(), image)
        return gradient

    row = 64 * 4
    # image, output, square, its gradient, and that of the image; the factor of square is a number
    assert measured_need(work, "cpu").of_image == 5 * row
    with PeakBytes("cpu") as counter:
        for _ in range(3):
            torch.ones(64).add_(1)[:2].clone()
    assert (counter.live, counter.peak) == (0, row + 8)
    with PeakBytes("cuda") as elsewhere:
        torch.ones(64)
    assert elsewhere.peak == 0


def test_parts_fill_the_budget_and_are_never_empty() -> None:
    need = Need(of_image=100, shared=50)
    assert [need.images_in(num_bytes, 5) for num_bytes in (0, 249, 250, 10_000)] == [1, 1, 2, 5]
    assert need.of(2) == 250
    assert memory_budget("cpu", 64) == 64 * 2**20


def test_a_row_is_given_the_same_numbers_in_parts_of_any_size() -> None:
    num, views = 5, 3
    generator = torch.Generator().manual_seed(7)

    def rows(wanted: slice) -> Tensor:
        part, size = PartGenerator.of_rows(generator, num, wanted), len(range(num)[wanted])
        first = drawn(torch.rand, (size, 2), part)
        of_views = drawn(torch.randn, (views * size, 2), part)
        return torch.cat((first[None], of_views.view(views, size, 2)))

    parts = torch.cat((rows(slice(0, 2)), rows(slice(2, num))), 1)
    assert len(parts.unique()) == parts.numel()
    # and those of a batch that is made at once
    whole = torch.rand((num, 2), generator=generator)[None]
    more = torch.randn((views * num, 2), generator=generator).view(views, num, 2)
    assert torch.equal(parts, torch.cat((whole, more)))


def test_a_batch_made_in_parts_leaves_its_generator_where_one_made_at_once_does() -> None:
    def after(size: int) -> tuple[Tensor, Tensor]:
        generator, rows = torch.Generator().manual_seed(1), torch.arange(5)
        batch = SynthesisBatch(torch.zeros(5, 2), rows, rows, generator)

        def make(part: SynthesisBatch, _: slice) -> SynthesizedImages:
            noise = drawn(torch.randn, (len(part.label_N), 2), part.generator)
            return SynthesizedImages(noise + part.label_N[:, None], noise)

        made = made_in_parts(batch, Parts("x", size), make)
        return made.image_NCHW, torch.rand(3, generator=generator)

    for found, expected in zip(after(2), after(5), strict=True):
        assert torch.equal(found, expected)
    assert not torch.equal(after(5)[1], torch.rand(3, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("size", ["", ", [2]", ', "images": [2]', ', "images": -3', "[" * 9_000])
def test_a_damaged_record_of_a_size_is_found_again(tmp_path: Path, size: str) -> None:
    (tmp_path / "parts.json").write_text(f'{{"key": "k"{size}}}', encoding="utf-8")
    assert memory._recorded(tmp_path / "parts.json", "k") is None
