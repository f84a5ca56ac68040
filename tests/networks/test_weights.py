"""Weights from the hub, without the hub."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from dfkd_edge.config.file import load_config, settings_of
from dfkd_edge.errors import ConfigError, EnvironmentLackingError
from dfkd_edge.networks.weights import OPEN_CLIP_FILES, require_weights, unread_weights
from dfkd_edge.preflight import needed_weights
from tests.fixtures.command import invoke


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put(cache: Path, repo: str, name: str) -> None:
    """Lay a file into the cache as the hub's client does."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc", encoding="utf-8")
    file = folder / "snapshots" / "abc" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")


def test_the_embedded_run_needs_nothing() -> None:
    assert needed_weights(load_config(None)) == []


def test_a_run_without_its_weights_stops_with_the_commands_that_fetch_them(
    tmp_path: Path, quickstart: Path, hub_cache: Path
) -> None:
    arguments, output = ("--classes", quickstart, "--preset", "clip-b32", "-q"), tmp_path / "run"
    error = invoke("distill", *arguments, "--output", output).exception
    assert isinstance(error, EnvironmentLackingError)
    assert error.exit_code == 4
    teacher = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K --include 'open_clip_*'"
    assert f"hf download {teacher} --cache-dir weights" in str(error)
    assert "hf download amused/amused-256 --include 'vqvae/*' --cache-dir weights" in str(error)
    assert f"cp -r weights/. {hub_cache}/" in str(error)
    assert not (output / "prompts").exists()


def test_weights_in_the_cache_are_found(hub_cache: Path) -> None:
    config = load_config(None, {"preset": "clip-b32"})
    repo = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    put(hub_cache, repo, "open_clip_model.safetensors")
    teacher, decoder = needed_weights(config)
    assert (teacher.repo, teacher.size_mb) == (repo, 605)
    assert teacher.path is not None
    assert decoder.path is None
    put(hub_cache, "amused/amused-256", "vqvae/diffusion_pytorch_model.safetensors")
    assert decoder.path is not None


def test_a_pretrained_student_and_a_hub_tokenizer_are_weights_too() -> None:
    overrides = ["teacher.name=ViT-B-16-SigLIP", "teacher.pretrained=webli"]
    config = load_config(None, settings_of([*overrides, "distillation.student=resnet18"]))
    repos = [weights.repo for weights in needed_weights(config)]
    assert repos == ["timm/ViT-B-16-SigLIP", "timm/ViT-B-16-SigLIP", "timm/resnet18.a1_in1k"]


def test_a_text_to_image_pipeline_is_a_weight_and_its_run_needs_no_decoder() -> None:
    overrides = ["synthesis.method=diffusion", "synthesis.pipeline=stabilityai/sd-turbo"]
    config = load_config(
        None, settings_of([*overrides, "synthesis.decoder=amused/amused-256/vqvae"])
    )
    with pytest.raises(EnvironmentLackingError, match=r"hf download stabilityai/sd-turbo"):
        require_weights(needed_weights(config))
    assert [weights.what for weights in needed_weights(config)] == ["pipeline stabilityai/sd-turbo"]
    with pytest.raises(ConfigError, match=r"synthesis\.pipeline"):
        load_config(None, settings_of(overrides[:1]))


def test_the_twins_of_a_weight_file_are_not_fetched() -> None:
    listed = [
        *("README.md", "vqvae/config.json", "vqvae/diffusion_pytorch_model.safetensors"),
        *("vqvae/diffusion_pytorch_model.bin", "vqvae/diffusion_pytorch_model.fp16.safetensors"),
    ]
    wanted = ("diffusion_pytorch_model.safetensors",)
    assert unread_weights(listed, "vqvae", wanted) == listed[3:]

    only_pickled = ["open_clip_config.json", "open_clip_pytorch_model.bin"]
    assert unread_weights(only_pickled, "", OPEN_CLIP_FILES) == []
    both = [*only_pickled, "open_clip_model.safetensors"]
    assert unread_weights(both, "", OPEN_CLIP_FILES) == ["open_clip_pytorch_model.bin"]
