"""What a run would do: images, steps, an estimate of time and memory, and downloads.

Time is arithmetic over the floating-point operations of the networks, which are counted on the meta
device without computing anything, and the speed of a matrix product that is measured here. A step
with gradients counts as three passes. Expect the truth within a factor of two.

Shape suffixes: T tokens.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from dfkd_edge.class_names import ClassNames
from dfkd_edge.config import PipelineConfig
from dfkd_edge.console import duration
from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.process import check_device
from dfkd_edge.prompts.contrastive import MAX_CLASSES_PER_STEP
from dfkd_edge.students import student_entry
from dfkd_edge.synthesis.amortized import uses_embedded_prior
from dfkd_edge.teacher import MINI, open_clip_name
from dfkd_edge.weights import HubWeights, needed_weights, shapes_of_teacher

EFFICIENCY = 0.5
"""Speed of our networks relative to a large matrix product (ours: convolutions on small images)."""
REFINED_SHARE = 0.5
"""Share of the images that the embedded teacher does not recognise at once (ours)."""
WITH_GRADIENT = 3
"""Cost of a step with gradients, in forward passes."""
MINI_DECODE_FLOPS, MINI_SAMPLE_FLOPS = 1.1e9, 0.6e9
"""The embedded decoder: one image, and one step of its prior; counted."""
VQGAN_DECODE_FLOPS = 4.8e11
"""A VQGAN decoder (amused-256's) at 256 px; counted. Grows with the number of pixels."""
PIPELINE_STEP_FLOPS, PIPELINE_DECODE_FLOPS = 8e11, 2.5e12
"""A text-to-image pipeline (SD-Turbo's) at 512 px: a step of its UNet, its decoder; counted."""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage of the plan."""

    name: str
    work: str
    """What it does, in numbers."""
    seconds: float
    """Estimated."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The whole plan."""

    stages: tuple[StagePlan, ...]
    downloads: tuple[HubWeights, ...]
    memory_gib: float
    """Estimated peak: weights, the gradients that synthesis may hold, the surrogate images."""
    speed_gflops: float
    """Measured speed of a matrix product."""
    device: str
    """Where it was measured: the run's device, or `cpu` where that is not here."""

    def document(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        downloads = [
            {
                **asdict(weights),
                "size_mb": weights.size_mb,
                "cached": str(weights.path) if weights.path else None,
            }
            for weights in self.downloads
        ]
        return {
            "stages": [asdict(stage) for stage in self.stages],
            "seconds": sum(stage.seconds for stage in self.stages),
            "memory_gib": self.memory_gib,
            "speed_gflops": self.speed_gflops,
            "device": self.device,
            "downloads": downloads,
        }

    def lines(self) -> list[str]:
        """Return the plan for a human, a line each."""
        rows = [
            f"{stage.name:<10}  {stage.work}, about {duration(stage.seconds)}"
            for stage in self.stages
        ]
        rows.append(
            f"{'memory':<10}  about {self.memory_gib:.1f} GiB; a matrix product runs at "
            f"{self.speed_gflops:.0f} GFLOP/s on this machine's {self.device}"
        )
        for weights in self.downloads:
            size = f"{weights.size_mb} MB" if weights.size_mb else "size unknown"
            place = f"here: {weights.path}" if weights.path else f"not here: {weights.command}"
            rows.append(f"{'download':<10}  {weights.what}, {size}, {place}")
        return rows


def measure_speed(device: str, side: int = 768) -> float:
    """Floating-point operations a second of a matrix product, the best of a few short ones."""
    matrix = torch.ones((side, side), device=device)
    best = float("inf")
    for _ in range(4):
        begun = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # reading a value waits for the device
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best


def count_flops(run: Any, *inputs: torch.Tensor) -> int:
    """Count the operations of a call on meta tensors."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run(*inputs)
    return int(counter.get_total_flops())


def make_plan(config: PipelineConfig, class_names: ClassNames) -> RunPlan:
    """Plan a run.

    Raises:
        ConfigError: the teacher or the student does not exist.
    """
    meta = torch.device("meta")
    teacher: Any = shapes_of_teacher(open_clip_name(config.teacher)[0])
    size = teacher.visual.image_size
    side = size if isinstance(size, int) else size[0]
    image = count_flops(teacher.encode_image, torch.empty(1, 3, side, side, device=meta))
    context_length = getattr(getattr(teacher, "text", teacher), "context_length", 77)
    tokens_1T = torch.ones((1, context_length), dtype=torch.long, device=meta)
    text = count_flops(teacher.encode_text, tokens_1T)
    entry = student_entry(config.distillation.student, config.distillation.image_size_px or None)
    with meta:
        student = timm.create_model(entry.timm_name, num_classes=0).eval()
    pixels = torch.empty(1, 3, entry.image_size_px, entry.image_size_px, device=meta)
    student_image = count_flops(student, pixels)
    device = _device_here(config.device)
    speed = measure_speed(device)
    rate = speed * EFFICIENCY
    stages = (
        _prompt_plan(config, len(class_names), text, rate),
        _synthesis_plan(config, side, image, rate),
        _distillation_plan(config, image, student_image, rate),
    )
    networks = [*teacher.parameters(), *student.parameters(), *student.parameters()]
    images_bytes = config.synthesis.num_images * 3 * (config.synthesis.image_size_px or side) ** 2
    gradients_bytes = config.synthesis.memory_mib * 2**20
    total = sum(p.numel() * 4 for p in networks) + images_bytes + gradients_bytes
    return RunPlan(stages, tuple(needed_weights(config)), total / 2**30, speed / 1e9, device)


def _device_here(wanted: str) -> str:
    """Where speed is measured: a plan may be made on another machine than the run."""
    try:
        check_device(wanted)
    except EnvironmentLackingError:
        return "cpu"
    return wanted


def _prompt_plan(config: PipelineConfig, num_classes: int, text: int, rate: float) -> StagePlan:
    prompts = config.prompts
    num_styles = 1 if prompts.method == "base" else prompts.num_styles
    work = f"{num_classes} classes x {num_styles} styles, {prompts.method}"
    texts = num_classes * num_styles
    if prompts.method == "contrastive":
        pairs = max(num_styles, min(num_classes, MAX_CLASSES_PER_STEP))
        texts += prompts.num_iterations * (num_styles + pairs) * WITH_GRADIENT
        work += f", {prompts.num_iterations} steps"
    return StagePlan("prompts", work, texts * text / rate)


def _synthesis_plan(config: PipelineConfig, side_px: int, image: int, rate: float) -> StagePlan:
    synthesis, num = config.synthesis, config.synthesis.num_images
    work = f"{num} images, {synthesis.method}"
    if synthesis.method == "diffusion":
        passes = synthesis.num_sampling_steps * (2 if synthesis.guidance_scale > 1 else 1)
        made = num * (passes * PIPELINE_STEP_FLOPS + PIPELINE_DECODE_FLOPS + image)
        return StagePlan("surrogates", f"{work}, pipeline {synthesis.pipeline}", made / rate)
    work += f", decoder {synthesis.decoder}"
    decode = VQGAN_DECODE_FLOPS * ((synthesis.image_size_px or side_px) / 256) ** 2
    if synthesis.decoder == MINI:
        decode = MINI_DECODE_FLOPS
    made = num * (decode + image)
    guided_step = WITH_GRADIENT * (decode + synthesis.num_views * image)  # of one image
    if synthesis.method == "per-image":
        work += f", {synthesis.num_optimisation_steps} steps each"
        made += num * synthesis.num_optimisation_steps * guided_step
        return StagePlan("surrogates", work, made / rate)
    if uses_embedded_prior(config.teacher.name, synthesis):
        made += num * 2 * synthesis.num_sampling_steps * MINI_SAMPLE_FLOPS
    else:
        work += f", {synthesis.num_training_steps} steps to train its network"
        made += synthesis.num_training_steps * synthesis.training_batch_size * guided_step
    refined = num * REFINED_SHARE * synthesis.num_refinement_steps
    made += refined * WITH_GRADIENT * (decode + image)
    return StagePlan("surrogates", work, made / rate)


def _distillation_plan(
    config: PipelineConfig, image: int, student_image: int, rate: float
) -> StagePlan:
    distillation = config.distillation
    views = distillation.num_steps * distillation.batch_size
    work = (
        f"{distillation.student}, {distillation.student_init} start, {distillation.num_steps} "
        f"steps of {distillation.batch_size} views"
    )
    return StagePlan("student", work, views * (image + WITH_GRADIENT * student_image) / rate)
