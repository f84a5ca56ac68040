import shutil
from pathlib import Path

import pytest

from dfkd_edge import assets
from dfkd_edge.class_names import ClassNames
from dfkd_edge.config.file import load_config, settings_of
from dfkd_edge.files import atomic_write
from dfkd_edge.preflight import run_key
from dfkd_edge.runs.key import content_of

USES_OF_A_FILE = {
    "teacher folder": ("teacher.name={folder}",),
    "teacher's weight file": ("teacher.name=ViT-B-32", "teacher.pretrained={file}"),
    "style words": ("prompts.method=mix", "prompts.style_words={file}"),
    "decoder checkpoint": ("synthesis.decoder={file}",),
    "pictures to learn from": ("few_shot.images={folder}",),
    "pipeline": ("synthesis.method=diffusion", "synthesis.pipeline={folder}"),
}


@pytest.mark.parametrize("settings", USES_OF_A_FILE.values(), ids=USES_OF_A_FILE.keys())
def test_a_file_replaced_under_its_path_makes_another_run(
    settings: tuple[str, ...], tmp_path: Path, classes: ClassNames
) -> None:
    file = tmp_path / "weights.ckpt"
    texts = [text.format(folder=tmp_path, file=file) for text in settings]
    config = load_config(None, settings_of(texts))
    file.write_text("before", encoding="utf-8")
    before = run_key(config, classes)
    assert run_key(config, classes) == before
    file.write_text("after!", encoding="utf-8")  # of the same size
    assert run_key(config, classes) != before


@pytest.mark.parametrize("name", ["TEACHER", "DECODER", "START_WEIGHTS"])
def test_other_embedded_weights_make_another_run(
    name: str, tmp_path: Path, classes: ClassNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run_key(load_config(None), classes)
    changed = tmp_path / "changed"
    changed.write_text("other weights", encoding="utf-8")
    monkeypatch.setattr(assets, name, changed)
    assert run_key(load_config(None), classes) != before


def test_content_is_that_of_the_files_wherever_they_lie(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    atomic_write(folder / "unet" / "weights.bin", b"1")
    atomic_write(folder / ".cache" / "downloaded", "yesterday")
    copy = shutil.copytree(folder, tmp_path / ".hidden" / "copy")
    atomic_write(copy / ".cache" / "downloaded", "today")
    assert content_of(folder) == content_of(copy) != ""
    (copy / "unet" / "weights.bin").rename(copy / "weights.bin")
    assert content_of(folder) != content_of(copy)
    assert content_of("owner/name") == content_of("") == ""
