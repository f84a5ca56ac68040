"""What a run would do: images, steps, an estimate of time and memory, and downloads.

Time is arithmetic over the passes of each network, which `pass_times.py` takes on this machine.
`tests/benchmarks/distill_seeds.py` prints a run's plan beside what it took.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import timm
import torch
from torch import Tensor, nn

from dfkd_edge.class_names import ClassNames
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.drawings.drawn_class import DrawnClass, drawings_text, drawn_classes
from dfkd_edge.drawings.memory import DrawingMemory, distinct_names, read_sheets
from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.estimates.pass_times import PassTimes, image_size_px, time_passes
from dfkd_edge.interfaces import Reporter
from dfkd_edge.machine.process import check_device
from dfkd_edge.networks.students import student_entry
from dfkd_edge.networks.teacher import load_teacher, open_clip_name
from dfkd_edge.networks.weights import HubWeights, shapes_of_teacher
from dfkd_edge.preflight import needed_weights
from dfkd_edge.prompts.contrastive import MAX_CLASSES_PER_STEP
from dfkd_edge.runtime.counting import duration_text
from dfkd_edge.synthesis.amortized import uses_embedded_prior

REFINED_SHARE = 0.75
"""Share of the images of the prior or network that the teacher does not recognise at once: three of
four in the quickstart."""
GUIDED = 2
"""Cost of a step that takes gradients through frozen networks to what they were given, in forward
passes: no gradients of weights are computed."""
LIBRARIES_BYTES = int(0.75 * 2**30)
"""Main memory of a process that has loaded torch, timm and open_clip and computed nothing, measured
on x86-64 Linux; the memory of a GPU holds none of it."""
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
    """Estimated peak where the networks compute: libraries, weights, surrogate images, and what is
    kept for gradients, by synthesis or by a training step, whichever is more."""
    times: PassTimes
    """What the estimates of time are made from."""
    wanted_device: str = "cpu"
    """Where the run would compute."""
    drawn: tuple[DrawnClass, ...] = ()
    """What the drawings of each class are named; empty where none are used."""

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
            "estimated_from": self.times.sentence(),
            "passes": asdict(self.times),
            "device": self.times.device,
            "downloads": downloads,
            "drawings": {each.name: each.to_json() for each in self.drawn},
        }

    def lines(self) -> list[str]:
        """Return the plan for a human, a line each."""
        rows = [
            f"{stage.name:<10}  {stage.work}, about {duration_text(stage.seconds)}"
            for stage in self.stages
        ]
        if self.drawn:
            rows.append(f"{'drawings':<10}  {drawings_text(self.drawn)}")
        rows.append(f"{'memory':<10}  about {self.memory_gib:.1f} GiB")
        rows.append(f"{'estimated':<10}  from {self.times.sentence()}")
        if self.wanted_device != self.times.device:
            rows.append(
                f"{'device':<10}  {self.wanted_device} is not here: a run would stop at once"
            )
        for weights in self.downloads:
            size = f"{weights.size_mb} MB" if weights.size_mb else "size unknown"
            place = f"here: {weights.path}" if weights.path else f"not here: {weights.command}"
            rows.append(f"{'download':<10}  {weights.what}, {size}, {place}")
        return rows


def make_plan(config: PipelineConfig, class_names: ClassNames) -> RunPlan:
    """Plan a run from times taken here.

    Raises:
        ConfigError: the teacher or the student does not exist.
    """
    teacher = shapes_of_teacher(open_clip_name(config.teacher)[0])
    times = time_passes(config, teacher, _device_here(config.device))
    return plan_with(config, class_names, teacher, times)


def with_drawings(
    plan: RunPlan, config: PipelineConfig, class_names: ClassNames, reporter: Reporter
) -> RunPlan:
    """Add what the memory of drawings holds for each class, of a run that starts from some.

    Raises:
        ConfigError: the memory is incomplete.
    """
    teacher = load_teacher(config.teacher, class_names)
    memory = DrawingMemory(teacher, reporter)
    return replace(plan, drawn=tuple(drawn_classes(memory, class_names, teacher.head_KD)))


def plan_with(
    config: PipelineConfig, class_names: ClassNames, teacher: nn.Module, times: PassTimes
) -> RunPlan:
    """Plan a run whose passes take so long; `teacher` is on the meta device."""
    entry = student_entry(config.distillation.student, config.distillation.image_size_px or None)
    with torch.device("meta"):
        student = timm.create_model(entry.timm_name, num_classes=0)
    stages = (
        _prompt_plan(config, len(class_names), times),
        _synthesis_plan(config, times),
        _distillation_plan(config, times),
    )
    side_px = config.synthesis.image_size_px or image_size_px(teacher)
    total = sum(p.numel() * 4 for p in (*teacher.parameters(), *student.parameters()))
    total += 3 * sum(p.numel() * 4 for p in student.parameters())  # gradients, moments of AdamW
    total += config.synthesis.num_images * 3 * side_px**2
    step_bytes = config.distillation.batch_size * kept_for_gradients(student, entry.image_size_px)
    total += max(config.synthesis.memory_mib * 2**20, step_bytes)
    total += LIBRARIES_BYTES if times.device == "cpu" else 0
    downloads = tuple(needed_weights(config))
    return RunPlan(stages, downloads, total / 2**30, times, config.device)


def kept_for_gradients(network: nn.Module, side_px: int) -> int:
    """Bytes that a forward pass in training keeps of one image, in float32.

    Args:
        network: on the meta device.
        side_px: of the image.
    """
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in weights:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.empty(2, 3, side_px, side_px, device="meta"))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) // 2


def _device_here(wanted: str) -> str:
    """Where speed is measured: a plan may be made on another machine than the run."""
    try:
        check_device(wanted)
    except EnvironmentLackingError:
        return "cpu"
    return wanted


def _prompt_plan(config: PipelineConfig, num_classes: int, times: PassTimes) -> StagePlan:
    prompts = config.prompts
    num_styles = 1 if prompts.method == "base" else prompts.num_styles
    work = f"{num_classes} classes x {num_styles} styles, {prompts.method}"
    texts = num_classes * num_styles
    if prompts.method == "contrastive":
        pairs = max(num_styles, min(num_classes, MAX_CLASSES_PER_STEP))
        texts += prompts.num_iterations * (num_styles + pairs) * GUIDED
        work += f", {prompts.num_iterations} steps"
    return StagePlan("prompts", work, texts * times.text_s)


def _synthesis_plan(config: PipelineConfig, times: PassTimes) -> StagePlan:
    synthesis, num = config.synthesis, config.synthesis.num_images
    work = f"{num} images, {synthesis.method}"
    if synthesis.method == "diffusion":
        passes = synthesis.num_sampling_steps * (2 if synthesis.guidance_scale > 1 else 1)
        drawn_s = times.counted_s(passes * PIPELINE_STEP_FLOPS + PIPELINE_DECODE_FLOPS)
        seconds = num * (drawn_s + times.image_s)
        return StagePlan("surrogates", f"{work}, pipeline {synthesis.pipeline}", seconds)
    work += f", decoder {synthesis.decoder}"
    seen_s = times.decode_s + times.image_s
    guided_s = GUIDED * (times.decode_s + synthesis.num_views * times.image_s)  # of one image
    if synthesis.method == "per-image":
        work += f", {synthesis.num_optimisation_steps} steps each"
        seconds = num * (synthesis.num_optimisation_steps * guided_s + seen_s)
        return StagePlan("surrogates", work, seconds)
    refined_s = synthesis.num_refinement_steps * GUIDED * seen_s + seen_s
    made_s = seen_s + REFINED_SHARE * refined_s * bool(synthesis.num_refinement_steps)
    if not uses_embedded_prior(config.teacher.name, synthesis):
        work += f", {synthesis.num_training_steps} steps to train its network"
        trained_s = synthesis.num_training_steps * synthesis.training_batch_size * guided_s
        return StagePlan("surrogates", work, trained_s + num * made_s)
    made_s += synthesis.num_sampling_steps * times.sample_s
    seconds = num * made_s
    if synthesis.exemplar_share:
        drawn = round(num * synthesis.exemplar_share)
        work += f", {drawn} of drawings if there are some of every class"
        searched_s = len(distinct_names(read_sheets())) * times.text_s
        seconds = searched_s + drawn * times.image_s + (num - drawn) * made_s
    return StagePlan("surrogates", work, seconds)


def _distillation_plan(config: PipelineConfig, times: PassTimes) -> StagePlan:
    distillation = config.distillation
    views = distillation.num_steps * distillation.batch_size
    work = (
        f"{distillation.student}, {distillation.student_init} start, {distillation.num_steps} "
        f"steps of {distillation.batch_size} views"
    )
    return StagePlan("student", work, views * (times.image_s + times.student_s))
