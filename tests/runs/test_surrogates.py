from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfkd_edge.artifacts import ClassCount, SurrogateSet, load_tensors, save_tensors
from dfkd_edge.config.settings import SynthesisConfig
from dfkd_edge.errors import ArtifactError
from dfkd_edge.results.kept import unmade_text, unrecognised_text
from dfkd_edge.runs import surrogates as stored
from dfkd_edge.runs.row_stores import ArrayRows
from dfkd_edge.synthesis import selection
from dfkd_edge.synthesis.selection import held_out, write_selection
from dfkd_edge.synthesis.synthesize import missing_shards, synthesis_setup
from tests.fixtures.synthesis import MakeSetup
from tests.fixtures.typed import class_count, surrogate_summary


def _candidates(seed: int, num: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    embedding = rng.normal(size=(num, 8)).astype(np.float32)
    return {
        "images": rng.integers(0, 256, (num, 8, 8, 3), dtype=np.uint8),
        "class_index": np.arange(num) % 2,
        "style_index": np.zeros(num, np.int64),
        "drawing_index": np.where(np.arange(num) % 4 == 0, np.arange(num) % 3, -1),
        "embeddings": embedding / np.linalg.norm(embedding, axis=1, keepdims=True),
        "probability": rng.random(num).astype(np.float32),
        "is_recognised": np.arange(num) % 2 == 0,  # class 1 is never recognised
    }


def test_a_class_that_is_never_recognised_keeps_its_likeliest_quarter() -> None:
    candidates = _candidates(0)
    labels, likely = candidates["class_index"], candidates["probability"]
    keep = selection.kept_candidates(labels, candidates["is_recognised"], likely)
    other = labels == 1
    assert keep[~other].all()
    assert keep[other].sum() == 5
    assert likely[keep & other].min() > likely[other & ~keep].max()


def _closed(folder: Path, num_shards: int = 1, key: str = "key") -> SurrogateSet:
    """Select among the shards, as when the stage is closed, and read what is kept."""
    write_selection(folder, num_shards, 0.2, key)
    return stored.read_surrogates(folder, ("a", "b"), "key")


def test_shards_come_back_filtered_with_held_out_images_of_every_class(tmp_path: Path) -> None:
    for number in range(2):
        stored.write_shard(tmp_path, number, "key", _candidates(number))
    surrogates = _closed(tmp_path, 2)
    assert len(surrogates) == 40 + 10
    assert set(surrogates.class_index[surrogates.is_heldout]) == {0, 1}
    told = "10 of them unrecognised: the teacher takes them for another class"
    assert unrecognised_text(surrogates.summary) == told
    assert unrecognised_text(replace(surrogates.summary, num_unrecognised=0)) == ""
    drawn, other = surrogates.summary.classes
    assert other == ClassCount(name="b", num_images=10, num_drawn=0, acceptance=0.0)
    assert selection.row_text(drawn) == ("a", "100% recognised", "40 kept, 20 drawn")
    assert selection.row_text(other) == ("b", "0% recognised", "10 kept")
    with Image.open(selection.write_contact_sheet(tmp_path, surrogates)) as sheet:
        # images of 8 px leave room for the text
        assert sheet.height >= 2 * 3 * selection.SHEET_LINE_PX


def test_a_shard_counts_only_for_its_key_and_when_whole(tmp_path: Path) -> None:
    stored.write_shard(tmp_path, 0, "key", _candidates(0))
    assert stored.has_shard(tmp_path, 0, "key")
    assert not stored.has_shard(tmp_path, 0, "other")
    path = stored.shard_path(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:-100])
    assert not stored.has_shard(tmp_path, 0, "key")
    with pytest.raises(ArtifactError, match="shard-00000"):
        write_selection(tmp_path, 1, 0.2, "key")


@pytest.mark.parametrize("name", ["images", "drawing_index"])
def test_a_shard_without_one_of_its_tables_is_named(tmp_path: Path, name: str) -> None:
    stored.write_shard(tmp_path, 0, "key", _candidates(0))
    write_selection(tmp_path, 1, 0.2, "key")
    rest = {key: value for key, value in _candidates(0).items() if key != name}
    stored.write_shard(tmp_path, 0, "key", rest)
    with pytest.raises(ArtifactError, match=r"shard-00000.*: run the same command again"):
        stored.read_surrogates(tmp_path, ("a", "b"), "key")


def test_what_is_held_out_was_decided_once_and_is_read(tmp_path: Path) -> None:
    stored.write_shard(tmp_path, 0, "key", _candidates(0))
    first, chosen = _closed(tmp_path), load_tensors(stored.selection_path(tmp_path))
    chosen["is_heldout"] = ~chosen["is_heldout"]  # as another version might have decided
    save_tensors(stored.selection_path(tmp_path), chosen, {"key": "key"})
    surrogates = _closed(tmp_path)  # again: another file was lost
    assert surrogates.is_heldout.tolist() == chosen["is_heldout"].tolist()
    assert surrogates.summary.num_heldout == chosen["is_heldout"].sum()
    assert surrogates.summary.content != first.summary.content  # another student's images
    assert _closed(tmp_path, key="other").is_heldout.tolist() == first.is_heldout.tolist()


def test_shards_of_a_decoder_that_was_replaced_are_made_anew(
    tmp_path: Path, make_setup: MakeSetup
) -> None:
    decoder = tmp_path / "vqgan.ckpt"
    decoder.write_bytes(b"1")
    setup = make_setup(SynthesisConfig(decoder=str(decoder), num_images=32))
    stored.write_shard(setup.folder, 0, setup.key, _candidates(0, 32))
    assert missing_shards(setup) == []
    decoder.write_bytes(b"2")
    inputs = setup.prompts, setup.teacher, setup.config, setup.context
    assert missing_shards(synthesis_setup(*inputs)) == [0]


def test_distance_within_a_class_is_the_mean_over_pairs() -> None:
    embedding = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    found = stored.mean_distance_within_class(ArrayRows(embedding), np.array([0, 0, 1, 1]))
    assert found == pytest.approx(0.5)


@pytest.mark.parametrize("num_classes", [2, 12, 100, 1000])
def test_lists_of_every_length_leave_images_for_evaluation(num_classes: int) -> None:
    label_N = np.random.default_rng(0).permutation(np.arange(2400) % num_classes)
    heldout_N = held_out(label_N, label_N * 0 - 1, 0.08)
    assert 0.05 <= heldout_N.mean() <= 0.09
    if num_classes <= 100:  # 24 images a class and more
        assert set(label_N[heldout_N]) == set(label_N)
    assert held_out(np.arange(3), np.full(3, -1), 0.08).sum() == 1  # even of the smallest set


@pytest.mark.parametrize(("num_drawn", "num_plain", "num_apart"), [(188, 21, 10), (100, 100, 16)])
def test_a_class_of_few_drawings_gives_other_images_in_their_place(
    num_drawn: int, num_plain: int, num_apart: int
) -> None:
    drawing_N = np.concatenate([np.arange(num_drawn) % 4, np.full(num_plain, -1)])
    heldout_N = held_out(np.zeros(len(drawing_N), np.int64), drawing_N, 0.08)
    assert heldout_N.sum() == num_apart
    assert not heldout_N[drawing_N >= 0].any()


@pytest.mark.parametrize(("num_drawings", "num_apart"), [(7, 0), (8, 1), (12, 1), (40, 3)])
def test_a_drawing_is_held_out_with_all_its_images(num_drawings: int, num_apart: int) -> None:
    label_N = np.random.default_rng(0).permutation(np.arange(2400) % 2)
    drawing_N = np.random.default_rng(1).integers(-1, num_drawings, 2400)
    heldout_N = held_out(label_N, drawing_N, 0.08)
    for label in range(2):
        mine_N = (label_N == label) & (drawing_N >= 0)
        apart = set(drawing_N[mine_N & heldout_N])
        assert len(apart) == num_apart
        assert not apart & set(drawing_N[mine_N & ~heldout_N])
        plain_N = (label_N == label) & (drawing_N < 0)
        assert 0 < heldout_N[plain_N].mean() <= (0.1 if num_apart else 0.5)


def test_a_class_that_no_image_shows_is_named_with_what_to_do() -> None:
    classes = class_count("wug", acceptance=0.0), class_count("dog", acceptance=0.1)
    told = unmade_text(surrogate_summary(classes=classes))
    assert "see wug: give a more common English name" in told
    assert "--images DIR" in told
    assert unmade_text(surrogate_summary(classes=classes[1:])) == ""
