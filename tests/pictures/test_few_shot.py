"""A few real pictures: which are taken, and how they join the surrogates."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dfkd_edge.artifacts import SurrogateSet
from dfkd_edge.commands.distill_view import few_shot_gain
from dfkd_edge.config.settings import FewShotConfig
from dfkd_edge.errors import ConfigError, EnvironmentLackingError
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.pictures.few_shot import join_pictures
from dfkd_edge.pictures.real import find_real_pictures
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.run_dir import read_stages
from tests.fixtures.files import read_json, write_picture
from tests.fixtures.ladders import figures, ladder, rung
from tests.fixtures.typed import surrogate_set, whole
from tests.report.pages import keep

NAMES = ("dog", "house", "person")


@pytest.fixture
def join(tmp_path: Path, teacher: Teacher, context: StageContext) -> Callable[[], SurrogateSet]:
    """Join the pictures that lie in the test's folder."""
    config, number = FewShotConfig(images=str(tmp_path), share=0.2), np.arange(40)
    embeddings = np.zeros((40, teacher.embed_dim), np.float32)
    fields = {"embeddings": embeddings, "is_heldout": number % 10 == 0}
    surrogates = surrogate_set(np.zeros((40, 32, 32, 3), np.uint8), number % 3, **fields)

    def joined() -> SurrogateSet:
        pictures = find_real_pictures(config, "", NAMES)
        return join_pictures(surrogates, pictures, teacher, config, context)

    return joined


def test_labelled_pictures_join_in_their_share_and_are_never_held_out(
    tmp_path: Path, join: Callable[[], SurrogateSet]
) -> None:
    write_picture(tmp_path / "House" / "1.png", 1)
    write_picture(tmp_path / "person" / "2.png", 2)
    joined = join()
    assert len(joined) == 50
    assert joined.class_index[40:].tolist() == [1, 2] * 5
    assert joined.is_heldout.sum() == 4
    assert not joined.is_heldout[40:].any()
    assert whole(joined.images)[40].std() > 10
    np.testing.assert_allclose(np.linalg.norm(whole(joined.embeddings)[40:], axis=1), 1, atol=1e-5)


def test_the_manifest_vouches_for_the_hash_of_every_picture(
    tmp_path: Path, join: Callable[[], SurrogateSet], context: StageContext
) -> None:
    file = write_picture(tmp_path / "dog" / "1.png", 1)
    one = join().summary
    assert one.few_shot
    assert "few_shot/few_shot.json" in read_stages(context.run_dir.path)["few_shot"]["files"]
    record = read_json(context.run_dir.path / "few_shot" / "few_shot.json")
    assert record["pictures"][str(file)] == one.few_shot.pictures[str(file)]
    write_picture(file, 9)
    assert join().summary.content != one.content != "surrogates"


def test_unlabelled_pictures_take_the_teachers_class(
    tmp_path: Path, join: Callable[[], SurrogateSet]
) -> None:
    for number in range(4):
        write_picture(tmp_path / f"{number}.png", number)
    joined = join()
    few_shot = joined.summary.few_shot
    assert few_shot
    assert (few_shot.is_labelled, few_shot.teacher_agreement) == (False, 1.0)
    assert set(joined.class_index[40:].tolist()) <= {0, 1, 2}


def evaluation(folder: Path, top1: float, num_images: int = 100) -> Path:
    photo = figures(top1, num_images)
    keep(folder, ladder(*(rung(name, {"photo": photo}) for name in ("teacher", "student"))))
    return folder


def test_the_gain_is_over_the_same_run_without_pictures_on_the_same_test(tmp_path: Path) -> None:
    ours, twin = evaluation(tmp_path / "ours", 0.75), evaluation(tmp_path / "twin", 0.7)
    told = "+5.0 points of mean top-1 over zero-shot (-8.0 to +17.9, may be chance)"
    assert few_shot_gain(ours, twin) == told
    evaluation(ours, 0.9)
    assert "chance" not in few_shot_gain(ours, twin)
    evaluation(twin, 0.7, num_images=50)
    for other in (twin, tmp_path / "none"):
        assert few_shot_gain(ours, other).startswith("distill without --images too")


def test_a_test_picture_is_refused_under_any_name(tmp_path: Path) -> None:
    file = write_picture(tmp_path / "few" / "dog" / "1.png", 1)
    copy = tmp_path / "test" / "photo" / "dog" / "other.png"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(file.read_bytes())
    config = FewShotConfig(images=str(tmp_path / "few"))
    with pytest.raises(ConfigError, match="also a test picture"):
        find_real_pictures(config, str(tmp_path / "test"), NAMES)


@pytest.mark.parametrize(
    ("names", "fault"),
    [([], "no picture"), (["dog/1.png", "dog/2.png", "dog/3.png"], "3 pictures of a class")],
)
def test_none_and_too_many_are_refused(tmp_path: Path, names: list[str], fault: str) -> None:
    for number, name in enumerate(names):
        write_picture(tmp_path / name, number)
    for folder, what in ((tmp_path, fault), (tmp_path / "x", "no such folder")):
        with pytest.raises(ConfigError, match=what):
            find_real_pictures(FewShotConfig(images=str(folder), max_per_class=2), "", NAMES)


@pytest.mark.parametrize("content", [b"", b"no picture", b"cut"])
def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    whole = write_picture(tmp_path / "dog" / "1.png", 1)
    broken = tmp_path / "dog" / "2.png"
    broken.write_bytes(whole.read_bytes()[:900] if content == b"cut" else content)
    with pytest.raises(
        ConfigError, match=r"picture cannot be read: .+ \(--images, .*2\.png\): remove"
    ):
        find_real_pictures(FewShotConfig(images=str(tmp_path)), "", NAMES)


def test_without_pillow_the_environment_lacks_something_and_the_picture_is_not_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "dog" / "1.png", 1)
    monkeypatch.setitem(sys.modules, "PIL", None)  # as where it is not installed
    with pytest.raises(EnvironmentLackingError, match="pictures need Pillow"):
        find_real_pictures(FewShotConfig(images=str(tmp_path)), "", NAMES)
