from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import VQModel
from torch import Tensor

from dfkd_edge import assets
from dfkd_edge.config.settings import SynthesisConfig
from dfkd_edge.drawings.memory import read_sheets
from dfkd_edge.errors import ArtifactError, ConfigError, EnvironmentLackingError
from dfkd_edge.interfaces import SynthesisBatch
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.networks.views import geometric_view
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.amortized import Refiner
from dfkd_edge.synthesis.decoder import SCALE_SUFFIX, from_eight_bits, load_decoder
from dfkd_edge.synthesis.decoders import (
    VqganDecoder,
    from_taming,
    load_latent_decoder,
    load_vq_model,
    lowest_pixel,
    read_checkpoint,
)
from dfkd_edge.synthesis.guidance import guidance_loss
from dfkd_edge.synthesis.retrieval import on_background
from tests.fixtures.synthesis import taming_layout

FILES = ("decoder.json", "autoencoder.safetensors", "prior.safetensors")


def test_eight_bit_weights_come_back_within_half_a_step() -> None:
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    scale = weight.flatten(1).abs().amax(1) / 127
    stored = (weight / scale.view(-1, 1, 1, 1)).round().to(torch.int8)
    bias = torch.ones(6)
    found = from_eight_bits({"w": stored, "w" + SCALE_SUFFIX: scale, "b": bias})
    assert set(found) == {"w", "b"}
    assert bool(((found["w"] - weight).abs() <= scale.view(-1, 1, 1, 1) / 2 + 1e-6).all())
    assert found["b"] is bias


@pytest.mark.parametrize("lost", FILES)
def test_a_missing_file_is_one_clear_error(tmp_path: Path, lost: str) -> None:
    for name in set(FILES) - {lost}:
        (tmp_path / name).symlink_to(assets.DECODER / name)
    with pytest.raises(ConfigError, match="incomplete"):
        load_decoder(tmp_path)


def test_the_embedded_decoder_keeps_the_shape_and_the_colour_of_what_it_encodes() -> None:
    decoder, generator = load_decoder(), stage_generator(0, "drawings")
    sheet = next(sheet for sheet in read_sheets() if sheet.path.stem == "twemoji")
    rgba = sheet.drawings(range(0, 800, 50)).float() / 255
    picture = on_background(F.interpolate(rgba, size=(96, 96), mode="bilinear"), generator)
    with torch.no_grad():
        cells = F.pixel_unshuffle(picture * 2 - 1, decoder.shuffled_px)
        decoded = decoder.decode(decoder.autoencoder.encode(cells).latents / decoder.latent_scale)
    error = (decoded - picture).square().mean((1, 2, 3))
    assert float((-10 * error.log10()).mean()) > 24
    colour, kept = (float((x.amax(1) - x.amin(1)).mean()) for x in (picture, decoded))
    assert 0.9 < kept / colour < 1.1


def test_a_taming_checkpoint_gives_the_pictures_of_the_same_vq_model(
    tiny_vqgan: VQModel, tmp_path: Path
) -> None:
    state = taming_layout(tiny_vqgan)
    for key in ("decoder.up.1.attn.0.q.weight", "decoder.mid.attn_1.proj_out.bias"):
        assert key in state
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "last.ckpt")
    loaded = load_vq_model(str(tmp_path / "last.ckpt")).eval()
    picture = torch.rand(1, 3, 16, 16, generator=stage_generator(0, "picture"))
    with torch.no_grad():
        torch.testing.assert_close(loaded(picture).sample, tiny_vqgan(picture).sample)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}, "callback": Path("anything")}, path)
    with pytest.raises(ArtifactError, match="more than tensors"):
        load_vq_model(str(path))
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(ArtifactError, match="not a taming-transformers VQGAN"):
        load_vq_model(str(path))


def test_a_decoder_that_is_not_here_is_named_with_the_command_that_fetches_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EnvironmentLackingError, match="hf download nobody/vqgan --local-dir"):
        load_vq_model("nobody/vqgan")
    with pytest.raises(EnvironmentLackingError, match="taming-transformers"):
        load_vq_model("nowhere/last.ckpt")


def test_the_latent_starts_and_stays_in_the_codebook_and_gets_gradients(
    vqgan_folder: Path, tiny_teacher: Teacher
) -> None:
    decoder = load_latent_decoder(SynthesisConfig(decoder=str(vqgan_folder)), tiny_teacher)
    assert isinstance(decoder, VqganDecoder)
    assert decoder.image_size_px == tiny_teacher.image_size_px == 2 * decoder.latent_shape[1]
    latent = decoder.start(2, 16, stage_generator(0, "start"))
    torch.testing.assert_close(decoder.clamp(latent), latent)
    far = decoder.clamp(latent * 100)
    assert float(far.amax()) == float(latent.amax())
    latent.requires_grad_()
    image = decoder.decode(latent)
    assert image.shape == (2, 3, 32, 32)
    assert float(image.detach().amin()) > -1e-6
    assert float(image.detach().amax()) < 1 + 1e-6
    image.sum().backward()
    assert latent.grad is not None
    assert float(latent.grad.abs().mean()) > 0


def trained_vqgan(low: float, spread: float = 1.0) -> VQModel:
    """Train a small VQ autoencoder on smooth pictures whose pixels go from `low` to 1."""
    torch.manual_seed(0)
    blocks = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    sizes = {"block_out_channels": (16, 16), "latent_channels": 4, "num_vq_embeddings": 64}
    model = VQModel(3, 3, *blocks, **sizes, vq_embed_dim=4, norm_num_groups=4)
    torch.nn.init.normal_(
        model.quantize.embedding.weight, std=spread
    )  # apart, or nothing is learnt
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(50):
        picture = F.interpolate(torch.rand(4, 3, 5, 5), size=32, mode="bicubic").clamp(0, 1)
        given = low + (1 - low) * picture
        optimiser.zero_grad()
        (model(given).sample - given).square().mean().backward()
        optimiser.step()
    return model


@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_pixels_are_read_in_the_range_that_the_autoencoder_was_trained_in(low: float) -> None:
    assert lowest_pixel(trained_vqgan(low)) == low


def test_refinement_changes_the_codes_of_a_codebook_and_what_the_teacher_sees(
    teacher: Teacher,
) -> None:
    decoder = VqganDecoder(trained_vqgan(0.0, spread=20), 64, 0.0)  # far apart
    label = torch.arange(6) % 3
    batch = SynthesisBatch(teacher.head_KD[label], label, label * 0, stage_generator(0, "x"))
    latent = decoder.start(6, 32, stage_generator(0, "start"))
    refined = Refiner(teacher, decoder, SynthesisConfig()).refined(latent, batch)

    def loss(latent: Tensor) -> float:
        image = decoder.decode(latent).repeat(8, 1, 1, 1)
        view = geometric_view(image, teacher.image_size_px, stage_generator(1, "fresh"))
        target, labels = batch.target_ND.repeat(8, 1), label.repeat(8)
        return float(guidance_loss(teacher.embed_images(view), target, labels, teacher))

    with torch.no_grad():
        assert float((decoder.decode(refined) - decoder.decode(latent)).abs().mean()) > 0.01
        assert loss(refined) < 0.9 * loss(latent)
    moved = ((refined - latent).abs() > 1e-3).any(1).float().mean((1, 2))
    assert bool((moved >= SynthesisConfig().refinement_rate).all())


def test_a_descent_without_a_gradient_leaves_every_code(tiny_vqgan: VQModel) -> None:
    decoder = VqganDecoder(tiny_vqgan, 32, -1.0)
    latent = decoder.start(2, 16, stage_generator(0, "start"))
    torch.testing.assert_close(decoder.descend(latent, torch.zeros_like(latent), 0.5), latent)


def test_steps_of_adam_are_in_units_of_the_codebook(tiny_vqgan: VQModel) -> None:
    state = tiny_vqgan.quantize.embedding.weight.detach()
    decoder = VqganDecoder(tiny_vqgan, 32, -1.0)
    assert decoder.spread == pytest.approx(
        float((state - state.mean(0)).square().mean().sqrt()), rel=0.05
    )
    assert load_decoder().spread == 1.0


def test_a_side_of_half_a_cell_is_refused(vqgan_folder: Path, tiny_teacher: Teacher) -> None:
    config = SynthesisConfig(decoder=str(vqgan_folder), image_size_px=33)
    with pytest.raises(ConfigError, match="such as 34"):
        load_latent_decoder(config, tiny_teacher)


@pytest.mark.parametrize("content", [{"state_dict": [1, 2]}, [1], 3, {"state_dict": None}, {1: 2}])
def test_a_checkpoint_of_another_type_is_one_line(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(ArtifactError, match=r"checkpoint is damaged|not a taming-transformers"):
        from_taming(read_checkpoint(tmp_path / "last.ckpt"))
