"""Every stage of the presets for real CLIPs at their real size, on a device that is not there."""

import contextlib
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from diffusers import VQModel

from dfkd_edge.artifacts import PromptSet, SurrogateSet
from dfkd_edge.class_names import parse_class_names
from dfkd_edge.config import presets
from dfkd_edge.config.file import load_config
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.conversion.teacher_graph import TracedGraph
from dfkd_edge.deployment import finetune
from dfkd_edge.distillation import distill
from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.machine.process import muted
from dfkd_edge.networks.memory import Parts, in_parts
from dfkd_edge.networks.students import build_student
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.prompts import diversify_prompts
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.run_dir import RunDir, open_run
from dfkd_edge.synthesis.decoders import VqganDecoder
from dfkd_edge.synthesis.per_image import OPTIMISING, PerImageSynthesizer
from dfkd_edge.synthesis.setup import SynthesisSetup
from dfkd_edge.synthesis.synthesize import make_candidates, synthesis_setup
from dfkd_edge.target_profiles.lookup import load_target
from dfkd_edge.validation.evaluate import evaluate
from tests.conftest import SilentReporter
from tests.fixtures.fake_device import DEVICE, FakeAccelerator, fake_accelerator
from tests.fixtures.typed import surrogate_set

AMUSED_LEVELS = (128, 256, 256, 512, 768)
CARD_GIB = {"clip-b32": 8.0, "clip-l14": 16.0}
NUM_CANDIDATES = 8
SAVING = "copy to the host"
"""What a checkpoint does with every tensor; within a step it would be a wait."""


@dataclass(frozen=True)
class Line:
    """The networks of a preset on the fake device, and the run that they work in."""

    gpu: FakeAccelerator
    card_gib: float
    config: PipelineConfig
    teacher: Teacher
    decoder: VqganDecoder
    context: StageContext
    prompts: PromptSet

    def setup(self, **changes: object) -> SynthesisSetup:
        wanted: dict[str, Any] = {"num_images": NUM_CANDIDATES, **changes}
        config = replace(self.config.synthesis, **wanted)
        return synthesis_setup(self.prompts, self.teacher, config, self.context)

    def waits_of_steps(self, run: Callable[[int], object]) -> Counter[str]:
        """Where two more steps wait for the device: none of them writes figures down."""
        few = self.gpu.waits_of(lambda: run(3))
        return self.gpu.waits_of(lambda: run(5)) - few


def amused_decoder() -> VqganDecoder:
    """The decoder of the presets, of random weights."""
    model = VQModel(
        down_block_types=("DownEncoderBlock2D",) * len(AMUSED_LEVELS),
        up_block_types=("UpDecoderBlock2D",) * len(AMUSED_LEVELS),
        block_out_channels=AMUSED_LEVELS,
        layers_per_block=2,
        latent_channels=64,
        vq_embed_dim=64,
        num_vq_embeddings=8192,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
    )
    return VqganDecoder(model.to(DEVICE), 224, low=0.0)


@pytest.fixture(scope="module", params=sorted(CARD_GIB))
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    with contextlib.ExitStack() as stack:
        gpu = stack.enter_context(fake_accelerator())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = load_config(Path(presets.__file__).with_name(f"{request.param}.toml"), {})
        with muted(30):
            model = open_clip.create_model(config.teacher.name, load_weights=False, device=DEVICE)
        tokenizer = open_clip.get_tokenizer(config.teacher.name)
        classes = parse_class_names("dog\nhouse\nperson\n", "three classes")
        teacher = Teacher(model, tokenizer, config.teacher, classes)
        run_dir: RunDir = stack.enter_context(
            open_run(folder / "run", "key", resume=True, exist_ok=False)
        )
        context = StageContext(run_dir, SilentReporter(), seed=0, device=DEVICE)
        prompts = diversify_prompts(teacher, replace(config.prompts, num_iterations=2), context)
        card = CARD_GIB[request.param]
        yield Line(gpu, card, config, teacher, amused_decoder(), context, prompts)


@pytest.fixture(autouse=True)
def _no_checkpoints_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint copies every tensor: on a busy machine one might fall into a counted step."""
    monkeypatch.setattr(sys.modules["dfkd_edge.distillation.distill"], "CHECKPOINT_INTERVAL_S", 1e9)


@pytest.fixture
def surrogates(line: Line) -> SurrogateSet:
    number = np.arange(24)
    images = np.zeros((24, 224, 224, 3), np.uint8)
    embeddings = np.zeros((24, line.teacher.embed_dim), np.float32)
    return surrogate_set(images, number % 3, embeddings=embeddings, is_heldout=number % 6 == 5)


def test_prompts_are_made_on_the_device(line: Line) -> None:
    assert line.prompts.embeddings.shape == (
        3 * line.config.prompts.num_styles,
        line.teacher.embed_dim,
    )


def test_latents_of_images_are_optimised_on_the_card_without_a_wait(line: Line) -> None:
    line.gpu.resize(line.card_gib)

    def make(num_steps: int) -> None:
        setup = line.setup(method="per-image", num_optimisation_steps=num_steps, num_images=2)
        made = PerImageSynthesizer(line.teacher, line.decoder, setup.config)
        made.parts = setup.parts(OPTIMISING, made.try_step, 2)
        make_candidates(0, setup, made)

    assert not line.waits_of_steps(make)


def test_the_student_learns_and_is_evaluated_on_the_card(
    line: Line, surrogates: SurrogateSet
) -> None:
    line.gpu.resize(line.card_gib)
    config = replace(line.config.distillation, num_steps=2)
    peak = line.gpu.peak_gib(lambda: distill(line.teacher, surrogates, config, line.context))
    assert peak <= line.card_gib
    student = distill(line.teacher, surrogates, config, line.context)
    ladder = evaluate(student, line.teacher, surrogates, "", line.context)
    assert len(ladder.rungs) == 3


def test_a_step_of_the_student_does_not_wait(line: Line, surrogates: SurrogateSet) -> None:
    line.gpu.resize(1024)

    def learn(num_steps: int) -> None:
        config = replace(line.config.distillation, num_steps=num_steps, batch_size=8)
        distill(line.teacher, surrogates, config, line.context)

    assert not line.waits_of_steps(learn)


def test_the_graph_of_the_teacher_computes_on_its_device(line: Line) -> None:
    line.gpu.resize(line.card_gib)
    tower: torch.nn.Module = line.teacher.model.visual  # type: ignore[assignment]
    image_NHWC = torch.zeros(1, 224, 224, 3, dtype=torch.uint8, device=line.teacher.device)
    with torch.no_grad():
        logits_NK, *_ = TracedGraph(tower, line.teacher)(image_NHWC)
    assert logits_NK.shape == (1, 3)


def test_the_fine_tune_for_int8_fits_the_card(
    line: Line, surrogates: SurrogateSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.gpu.resize(line.card_gib)
    monkeypatch.setattr(finetune, "NUM_STEPS", 2)
    monkeypatch.setattr(finetune, "NUM_RANGE_IMAGES", 2)
    spec = load_target("jetson").quantization
    assert spec is not None
    student = build_student(
        line.config.distillation.student, "random", line.teacher.head_KD, 100.0, 224
    )

    def tune() -> None:
        finetune.finetune_quantized(student, line.teacher, surrogates, spec, 99.99, line.context)

    assert line.gpu.peak_gib(tune) <= line.card_gib


def test_what_lies_on_a_wrong_device_raises() -> None:
    with fake_accelerator() as gpu:
        here, there = torch.rand(2), torch.rand(2, device=gpu.device)
        with pytest.raises(RuntimeError, match="same device"):
            here + there
        with pytest.raises(RuntimeError, match="a generator on cpu for a tensor on gpu"):
            torch.rand(2, generator=torch.Generator(), device=gpu.device)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert torch.rand(2, generator=torch.Generator(DEVICE), device=DEVICE).device == gpu.device


def test_a_wait_for_the_device_is_counted() -> None:
    with fake_accelerator() as gpu:
        value = torch.rand(2, device=gpu.device)
        found = gpu.waits_of(lambda: (float(value[0]), value.cpu(), value[value > 0]))
    assert found == {"_local_scalar_dense": 1, SAVING: 1, "index by a mask": 1}


def test_a_card_that_is_full_is_worked_on_in_halves_and_one_too_small_is_an_error() -> None:
    with fake_accelerator() as gpu:
        gpu.resize(1.1)

        def square(rows: slice) -> float:
            image = torch.rand(rows.stop - rows.start, 2**26, device=gpu.device)  # 256 MiB each
            return float((image * image).sum())

        parts = Parts("squaring", 8, DEVICE)
        assert len(in_parts(8, parts, square)) == 4
        assert parts.size == 2
        gpu.resize(0.3)
        with pytest.raises(EnvironmentLackingError, match=r"a fake card with 0\.3 GiB has too"):
            in_parts(1, parts, square)
