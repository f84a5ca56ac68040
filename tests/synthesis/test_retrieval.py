import torch
from torch import Tensor

from dfkd_edge.interfaces import SynthesisBatch, SynthesizedImages
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.retrieval import RetrievalSynthesizer, on_background, placed


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

    def __call__(self, batch: SynthesisBatch) -> SynthesizedImages:
        self.labels += batch.label_N.tolist()
        grey = torch.full((len(batch.label_N), 3, 32, 32), 0.5)
        return SynthesizedImages(grey, self.head_KD[batch.label_N])


LABEL_N = torch.arange(3).repeat(100)
MANY = torch.zeros(12, 4, 64, 64, dtype=torch.uint8)


def made(
    inner: Plain,
    num: int,
    share: float,
    teacher: Teacher,
    seed: int = 0,
    scene_share: float = 1,
) -> tuple[SynthesizedImages, Tensor, list[int]]:
    """Make 100 images a class, of 12, `num` and no drawings; tell which are grey, and how many."""
    synthesizer = RetrievalSynthesizer(
        inner, (MANY, MANY[:num], MANY[:0]), teacher, share, scene_share, 32
    )
    target_ND = teacher.head_KD[LABEL_N]
    images = synthesizer(
        SynthesisBatch(target_ND, LABEL_N, LABEL_N * 0, stage_generator(seed, "x"))
    )
    is_grey = (images.image_NCHW == 0.5).flatten(1).all(1)
    assert images.drawing_N is not None
    assert torch.equal(is_grey, images.drawing_N == -1)
    return images, is_grey, torch.bincount(LABEL_N[~is_grey], minlength=3).tolist()


def test_a_share_of_the_images_comes_from_drawings_and_the_seed_decides_which(
    teacher: Teacher,
) -> None:
    images = []
    for seed in (0, 0, 1):
        inner = Plain(teacher)
        (image, embedding, drawing), is_grey, counts = made(inner, 2, 0.5, teacher, seed)
        assert drawing is not None
        assert set(drawing[LABEL_N == 1].tolist()) == {-1, 0, 1}
        assert 35 <= counts[0] <= 65  # the share
        assert 4 <= counts[1] <= 25  # two of eight drawings: a quarter of the share
        assert counts[2] == 0
        assert inner.labels == LABEL_N[is_grey].tolist()
        torch.testing.assert_close(embedding[is_grey], teacher.head_KD[LABEL_N[is_grey]])
        images.append(image)
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_what_the_teacher_misses_is_drawn_where_there_are_enough_drawings(teacher: Teacher) -> None:
    inner = Plain(teacher, shift=1)
    _, _, counts = made(inner, 4, 0.0, teacher)
    assert len(inner.labels) == 300
    assert counts[0] == 100
    assert 35 <= counts[1] <= 65
    assert counts[2] == 0


def test_drawings_lie_in_scenes_where_the_teacher_then_sees_their_class(teacher: Teacher) -> None:
    (plain, *_), *_ = made(Plain(teacher), 12, 1.0, teacher, scene_share=0)
    for scene_share, at_least, at_most in ((0.5, 10, 110), (1.0, 40, 190)):
        images, *_ = made(Plain(teacher), 12, 1.0, teacher, scene_share=scene_share)
        has_scene = (images.image_NCHW != plain).flatten(1).any(1) & (LABEL_N < 2)
        assert at_least <= int(has_scene.sum()) <= at_most
        seen = teacher.logits(images.embedding_ND).argmax(1) == LABEL_N
        assert bool(seen[has_scene].all())
        torch.testing.assert_close(
            images.embedding_ND[LABEL_N < 2], teacher.embed_images(images.image_NCHW[LABEL_N < 2])
        )
