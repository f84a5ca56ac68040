"""One frozen dataclass a stage.

`config.file` reads them from outside and refuses what lies out of the annotated ranges; code that
makes one itself is trusted. What no range can say is checked in `__post_init__`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Interval, Len  # pydantic's own would load pydantic for --help

from dfkd_edge.errors import ConfigError

RUNS = Path("runs")  # Where run directories are made when none is named
LATEST = RUNS / "latest"  # Link to the run that `distill` finished last
MINI = "mini"  # Name of the embedded teacher, decoder and student
PIXELS = "pixels"  # Name of the decoder that has no weights
PromptMethod = Literal["base", "mix", "random", "contrastive"]
SynthesisMethod = Literal["amortized", "per-image", "diffusion"]
"""Names of the table in synthesis/synthesizers.py, which lies above."""
StudentInit = Literal["pretrained", "random"]
Activation = Literal["auto", "gelu", "quickgelu"]


def _require_zero_or(low: int, high: int, value: float, key: str, unit: str = "") -> None:
    """Refuse what no annotation can: 0 stands for a default, the rest has a range."""
    if value and not low <= value <= high:
        raise ConfigError(f"must be 0, or {low} to {high}{unit}", where=key)


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """Which CLIP is distilled."""

    name: str = "mini"
    """`mini` (embedded), a name that open_clip knows, or a local open_clip folder."""
    pretrained: str = ""
    """open_clip's tag of the weights, or a weight file; empty for `mini` and folders."""
    activation: Activation = "auto"
    """`auto`: as the tag or the folder says; `gelu` or `quickgelu` for a weight file that does not
    say it."""
    templates: tuple[str, ...] = (
        "a photo of a {}",
        "a drawing of a {}",
        "a painting of a {}",
        "a cartoon of a {}",
        "a sketch of a {}",
        "{}",
    )
    """Prompt ensemble of the zero-shot head (ours). It names domains of PACS and DomainNet; for a
    head that names none, give the first alone."""

    def __post_init__(self) -> None:
        """Check that every template has its place for the class name."""
        if not self.templates or any(t.count("{}") != 1 for t in self.templates):
            what = "every template needs one {} for the class name"
            raise ConfigError(what, where="teacher.templates")


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptConfig:
    """How class names become prompts in many styles."""

    method: PromptMethod = "contrastive"
    """`base`: one plain sentence a class; `mix`: interpolated style words; `random`: drawn after
    the token table; `contrastive`: learnt styles."""
    num_styles: Annotated[int, Interval(ge=1, le=512)] = 16
    """Styles of `mix`, `random` and `contrastive`; `base` has one."""
    style_words: str = "neutral"
    """Words of `mix`: `neutral`, `domains` (names test domains), or a text file, one a line."""
    num_iterations: Annotated[int, Interval(ge=1, le=10_000)] = 60
    """Optimiser steps, all styles at once (ours; PromptStyler: 100 a style)."""
    learning_rate: Annotated[float, Interval(gt=0, le=1e3)] = 0.2
    """Adam's rate, in units of the token table's standard deviation (ours)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthesisConfig:
    """How prompts become surrogate images."""

    method: SynthesisMethod = "amortized"
    """`amortized`: a network samples latents; `per-image`: latents are optimised, the reference;
    `diffusion`: a text-to-image pipeline draws."""
    decoder: str = "mini"
    """`mini` (embedded); `pixels`: no network, the image is a sum of tensors of many resolutions,
    for any teacher and side; a folder or hub id of a `VQModel`, or a taming VQGAN checkpoint."""
    pipeline: str = ""
    """`diffusion`: folder or hub id of a text-to-image pipeline of diffusers."""
    text_noise: Annotated[float, Interval(ge=0, le=2)] = 0.0
    """`diffusion`: random offset of each token of the text, relative to the token's length."""
    image_size_px: int = 0
    """Side of the images; 0 takes the decoder's own, or the teacher's where it has none."""
    num_images: Annotated[int, Interval(ge=0, le=1_000_000)] = 0
    """Candidates over all classes; the teacher's filter drops some. 0 takes what so many classes
    need: 640 of up to 7, 1,406 of 20, 7,909 of 200."""
    balanced_styles: bool = False
    """Let the styles of each class take turns; otherwise each image draws its own."""
    num_sampling_steps: Annotated[int, Interval(ge=0, le=1000)] = 0
    """Steps for each image; 0 takes 6 of the embedded prior, and of a pipeline as many as it was
    made for: SD-Turbo and its like 2."""
    guidance_scale: Annotated[float, Interval(ge=0, le=100)] = 0.0
    """Classifier-free guidance, 1 for none; 0 takes 2.5 of the embedded prior, and of a pipeline
    what it was made for: SD-Turbo and its like none."""
    condition_noise: Annotated[float, Interval(ge=0, le=2)] = 0.5
    """Length of the random offset of each prompt embedding, whose length is 1."""
    exemplar_share: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Embedded prior: share of the images that start from drawings of its memory, besides those in
    which the teacher misses the class; 0 leaves the memory alone (ours)."""
    scene_share: Annotated[float, Interval(ge=0, le=1)] = 0.75
    """Share of the drawings laid in scenes of texture, light and other things; those in which the
    teacher then misses the class, and the others, have plain backgrounds (ours)."""
    num_refinement_steps: Annotated[int, Interval(ge=-1, le=1000)] = -1
    """Guided steps on the latents of images that the teacher does not recognise; -1 takes 2, and 12
    of the embedded prior where no image starts from a drawing."""
    refinement_rate: Annotated[float, Interval(ge=1e-9, le=1e3)] = 0.15
    """Length of a refinement step, in deviations of the decoder's latents (ours); of a codebook at
    least this share of an image's codes changes."""
    num_refinement_views: Annotated[int, Interval(ge=1, le=64)] = 1
    """Views of an image in a refinement step; one alone invites pictures that only it likes."""
    num_optimisation_steps: Annotated[int, Interval(ge=1, le=100_000)] = 400
    """`per-image`: Adam steps on each latent (Wei et al.)."""
    optimisation_rate: Annotated[float, Interval(ge=1e-9, le=1e3)] = 0.1
    """`per-image`: Adam's rate (VQGAN-CLIP, Wei et al.), in deviations of the decoder's latents."""
    num_views: Annotated[int, Interval(ge=1, le=1024)] = 8
    """Views of an image in a step of `per-image` (VQGAN-CLIP: 32)."""
    recognition_margin: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """The asked class counts as recognised where it leads by so much of the probability; 0: where
    it comes first."""
    total_variation_weight: Annotated[float, Interval(ge=0, le=1e6)] = 0.0
    """Weight of the total variation of the pixels."""
    latent_l2_weight: Annotated[float, Interval(ge=0, le=1e6)] = 0.0
    """Weight w of the latent's mean square; `per-image`: w / (2 i + 1) / 2 at step i."""
    num_descent_steps: Annotated[int, Interval(ge=0, le=100_000)] = 95
    """`amortized` without a prior: steps of `per-image` on each latent. The default takes a
    twentieth of the time of 400 steps of 8 views with the embedded teacher."""
    descent_start: Annotated[float, Interval(ge=0, le=1)] = 0.3
    """Deviation of the starts of such a descent, relative to the decoder's own: from whole noise,
    pictures keep its clutter."""
    num_descent_views: Annotated[int, Interval(ge=1, le=1024)] = 1
    """Views of an image in such a step, and in one of the network's training: few where a view
    costs as much as a picture, as those of the embedded teacher do."""
    training_passes: Annotated[int, Interval(ge=0, le=1_000_000)] = 0
    """Passes over all prompts, classes x styles, of the training of a network that moves latents to
    where the descent begins. 0 trains none: where it was measured, random starts made no worse
    students in less time (examples/measurements)."""
    num_training_steps: Annotated[int, Interval(ge=0, le=10_000_000)] = 0
    """Steps of its training in place of `training_passes`; 0 leaves it to them."""
    training_rate: Annotated[float, Interval(ge=1e-9, le=10)] = 2e-3
    """Adam's rate for the network at its peak."""
    training_batch_size: Annotated[int, Interval(ge=2, le=4096)] = 16
    """Images a step of the network, two of each prompt."""
    diversity_weight: Annotated[float, Interval(ge=0, le=1e3)] = 0.5
    """Weight of the mean distance between pictures of one prompt, for the network."""
    replay_share: Annotated[float, Interval(ge=0, le=0.9)] = 0.0
    """Share of the network's prompts that are replayed because the teacher misses them."""
    low_resolution_share: Annotated[float, Interval(ge=0, le=0.95)] = 0.0
    """`per-image`: share of the steps, the first ones, at half the side."""
    memory_mib: Annotated[int, Interval(ge=64, le=10_000_000)] = 256
    """Memory that images take together on a CPU; a card's free memory decides there (ours)."""
    heldout_share: Annotated[float, Interval(ge=1e-9, le=0.5)] = 0.08
    """Share of the images that the student never trains on."""

    def __post_init__(self) -> None:
        """Check side, guidance and resolution, and that `diffusion` has a pipeline."""
        _require_zero_or(32, 2048, self.image_size_px, "synthesis.image_size_px", " px")
        _require_zero_or(1, 100, self.guidance_scale, "synthesis.guidance_scale")
        if self.method == "diffusion" and not self.pipeline:
            what = "name a diffusers folder or hub id, such as stabilityai/sd-turbo"
            raise ConfigError(what, where="synthesis.pipeline")
        if self.decoder == PIXELS and self.low_resolution_share:
            what, where = "pixels have all resolutions at once", "synthesis.low_resolution_share"
            raise ConfigError(what, where=where, hint="0")


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotConfig:
    """A few real pictures that join the surrogate images."""

    images: str = ""
    """Folder: DIR/<class>/* or, unlabelled, DIR/*; empty for none (zero-shot)."""
    max_per_class: Annotated[int, Interval(ge=1, le=1_000_000)] = 16
    """More of a class are refused: that is no longer few."""
    share: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    """Share of the training images that copies of the real pictures make up (ours)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillationConfig:
    """How the student learns from the teacher on surrogate images."""

    student: str = "mini"
    """A name of the table of students, or of timm."""
    student_init: StudentInit = "pretrained"
    """`pretrained`: start weights; `random`: none."""
    image_size_px: int = 0
    """Side of the student's input; 0 takes the student's own."""
    num_steps: Annotated[int, Interval(ge=0, le=100_000_000)] = 0
    """Optimiser steps, not epochs. 0 takes what so many classes need: 100 of up to 7, 220 of 20,
    1,236 of 200."""
    batch_size: Annotated[int, Interval(ge=2, le=4096)] = 64
    """Views a step; each is labelled by the teacher."""
    learning_rate: Annotated[float, Interval(ge=0, le=1e3)] = 0.0
    """AdamW's peak rate; 0 takes 3e-4 for pretrained students and 1e-3 for random ones."""
    weight_decay: Annotated[float, Interval(ge=0, le=1e3)] = 0.02
    """On weights, not on biases and norms."""
    num_warmup_steps: Annotated[int, Interval(ge=0, le=100_000_000)] = 50
    """Linear rise to the peak, at most a quarter of the run; a half cosine follows."""
    temperature: Annotated[float, Interval(ge=1e-3, le=1e3)] = 3.0
    """Softens both distributions in the soft-target loss."""
    soft_target_weight: Annotated[float, Interval(ge=0, le=1e6)] = 1.0
    """Weight of the soft-target loss."""
    feature_weight: Annotated[float, Interval(ge=0, le=1e6)] = 4.0
    """Weight of the feature distance, 1 - cosine."""
    style_probability: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Share of the views with a random style operation."""
    balanced_styles: bool = False
    """Whether the half of a batch that is even over classes is even over their styles too."""
    hard_share: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Share of a batch drawn from the images with the largest feature distance so far; 0: none."""
    ema_decay: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Decay of the moving average of the weights, which is then what ships; 0 takes the last."""
    num_stored_views: Annotated[int, Interval(ge=-1, le=1024)] = -1
    """Views of each image that the teacher labels once and for all; 0 labels those of every step;
    -1: 10 in long runs of a large teacher, whose pass takes more than five of the student's."""
    compile: bool = False
    """On CUDA: compile both image towers, let cuDNN try its kernels, take TF32; not measured."""

    def __post_init__(self) -> None:
        """Check the side of the student's input."""
        key = "distillation.image_size_px (--imgsz)"
        _require_zero_or(32, 512, self.image_size_px, key, " px")

    @property
    def peak_learning_rate(self) -> float:
        """AdamW's peak rate, with the default of the student's initialisation filled in."""
        return self.learning_rate or (3e-4 if self.student_init == "pretrained" else 1e-3)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """How a student becomes a bundle for a target."""

    target: str = "jetson"
    """A target's name, `orin-nano-8gb@jp6.2`, or an alias; see `targets list`."""
    precision: Literal["auto", "fp32", "fp16", "int8"] = "auto"
    """`auto`: the best that the target computes in."""
    batch: Annotated[tuple[Annotated[int, Interval(ge=1, le=4096)], ...], Len(1)] = (1,)
    """One number: static batch; several: smallest, usual and largest of a dynamic one."""
    opset: int = 0
    """ONNX opset; 0 takes the target's."""
    calibration_size: Annotated[int, Interval(ge=1, le=100_000)] = 512
    """Surrogate images that set the activation ranges."""
    calibration_data: str = ""
    """Folder of real pictures to calibrate with instead; empty takes the surrogate images."""
    calibration_method: Literal["mse", "minmax", "entropy", "percentile"] = "mse"
    """How ranges follow from what was seen."""
    percentile: Annotated[float, Interval(gt=90, le=100)] = 99.99
    """Share of values inside the range, in percent, for `percentile`."""
    max_drop: Annotated[float, Interval(ge=0, le=1)] = 0.01
    """Largest accuracy loss on the worst domain, absolute; more fails the gate."""
    repair: bool = True
    """Put layers back to float, then fine-tune, when INT8 misses the gate."""
    num_threads: Annotated[int, Interval(ge=0, le=4096)] = 0
    """Threads of latency measurements; 0 takes all cores."""
    runtimes: tuple[str, ...] = ()
    """What else the bundle is made for, such as `deepstream` and `triton`; see `runtimes list`."""

    def __post_init__(self) -> None:
        """Check the opset."""
        _require_zero_or(13, 25, self.opset, "export.opset (--opset)")


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineConfig:
    """Every setting of a run."""

    # hold for the sections too; TOML has `inf` and `nan`
    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    classes: str = ""
    """Path of the class list."""
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    """Every random number follows from it."""
    device: str = "cpu"
    """Torch device of the whole run."""
    effort: Annotated[float, Interval(gt=0, le=1000)] = 1.0
    """Times as many images and steps as a list's length takes; numbers that are given stay."""
    data: str = ""
    """Labelled pictures for evaluation only: DIR/<domain>/<class>/ or DIR/<class>/; or empty."""
    baseline: str = ""
    """A small CLIP that the student is compared with as it is: an open_clip NAME, NAME:TAG where it
    has several weights, or a local folder; or empty."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    prompts: PromptConfig = field(default_factory=PromptConfig)
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    few_shot: FewShotConfig = field(default_factory=FewShotConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
