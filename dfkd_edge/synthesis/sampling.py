"""How a text-to-image pipeline was made to be sampled, read from the settings beside its weights.

A distilled pipeline draws in a few steps without guidance; with the many steps and the guidance of
others its pictures are burnt. Its scheduler tells, else its name.
"""

import inspect
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub

from dfkd_edge.config.settings import SynthesisConfig

CONSISTENCY_SCHEDULERS = ("LCMScheduler", "TCDScheduler")
CONSISTENCY_STEPS = 4  # SimianLuo/LCM_Dreamshaper_v7, latent-consistency/lcm-sdxl: 4 to 8, 2 to 8
TURBO_STEPS = 2  # stabilityai/sd-turbo and sdxl-turbo: 1 to 4, without guidance
NAMED_STEPS = re.compile(r"(?<!\d)(\d{1,2})[-_ ]?steps?\b", re.IGNORECASE)  # "sdxl_lightning_4step"
DISTILLED = re.compile(r"(?<![a-z])(turbo|lightning|lcm|hyper|schnell)(?![a-z])", re.IGNORECASE)
USUAL = 50, 7.5  # Stable Diffusion's steps and guidance, where a class names none


@dataclass(frozen=True, slots=True)
class Sampling:
    """Steps and guidance of an image."""

    num_steps: int
    guidance_scale: float  # 1: none
    takes_guidance: bool = False  # The network is told it, so that a step is one pass all the same

    @property
    def is_guided(self) -> bool:
        """Whether a step runs with the text and without it (classifier-free guidance)."""
        return self.guidance_scale > 1 and not self.takes_guidance

    @property
    def num_passes(self) -> int:
        """Passes of the denoising network for an image."""
        return self.num_steps * (2 if self.is_guided else 1)

    def __str__(self) -> str:
        """Write it for a person."""
        guidance = f"guidance {self.guidance_scale:g}" if self.guidance_scale > 1 else "no guidance"
        return f"{self.num_steps} {'step' if self.num_steps == 1 else 'steps'}, {guidance}"


def sampling_of(config: SynthesisConfig) -> Sampling:
    """Settle steps and guidance: what the user sets, else what the pipeline was made for."""
    own = own_sampling(config.pipeline)
    return Sampling(
        config.num_sampling_steps or own.num_steps,
        config.guidance_scale or own.guidance_scale,
        own.takes_guidance,
    )


def own_sampling(pipeline: str) -> Sampling:
    """Read what a pipeline was made for: a folder, or a hub id whose settings are here."""
    index = settings_of(pipeline, "model_index.json")
    scheduler = settings_of(pipeline, "scheduler/scheduler_config.json")
    denoiser = settings_of(pipeline, "unet/config.json")
    denoiser = denoiser or settings_of(pipeline, "transformer/config.json")
    steps, guidance = _usual_call(index.get("_class_name", ""))
    takes_guidance = denoiser.get("time_cond_proj_dim") is not None
    guidance_of_few = guidance if takes_guidance else 1.0
    # the last part of a path: a folder above it says nothing of the pipeline
    own_name = Path(pipeline).name if Path(pipeline).exists() else pipeline
    named = (own_name, *(str(each.get("_name_or_path", "")) for each in (index, denoiser)))
    names = " ".join(named)
    if scheduler.get("_class_name") in CONSISTENCY_SCHEDULERS:
        return Sampling(CONSISTENCY_STEPS, guidance_of_few, takes_guidance)
    if _is_of_few_steps(scheduler) or DISTILLED.search(names):
        found = NAMED_STEPS.search(names)
        return Sampling(int(found[1]) if found else TURBO_STEPS, guidance_of_few, takes_guidance)
    return Sampling(steps, guidance, takes_guidance)


def _is_of_few_steps(scheduler: dict[str, Any]) -> bool:
    """Whether a scheduler is that of SD-Turbo, SDXL-Turbo or SDXL-Lightning.

    They start at the last, noisiest time ("trailing") and predict noise. Networks of many steps
    that do the former were trained for it, on velocities or with a terminal signal of zero.
    """
    return (
        str(scheduler.get("_class_name", "")).startswith("Euler")
        and scheduler.get("timestep_spacing") == "trailing"
        and scheduler.get("prediction_type", "epsilon") == "epsilon"
        and not scheduler.get("rescale_betas_zero_snr")
    )


def _usual_call(class_name: str) -> tuple[int, float]:
    """Steps and guidance that a class of pipelines takes when it is told none."""
    pipeline = getattr(diffusers, class_name, None)
    told = inspect.signature(pipeline.__call__).parameters if pipeline else {}
    names = ("num_inference_steps", "guidance_scale")
    steps, guidance = (told[name].default if name in told else None for name in names)
    return (
        steps if isinstance(steps, int) else USUAL[0],
        float(guidance) if isinstance(guidance, int | float) else USUAL[1],
    )


def settings_of(pipeline: str, file: str) -> dict[str, Any]:
    """Read a JSON file of a pipeline's folder or of the hub's cache; empty where there is none."""
    path: Any = Path(pipeline) / file
    if not Path(pipeline).is_dir():
        try:
            path = huggingface_hub.try_to_load_from_cache(pipeline, file)
        except ValueError:  # no name that the hub could have
            return {}
        if not isinstance(path, str):  # absent, or known to be absent
            return {}
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
