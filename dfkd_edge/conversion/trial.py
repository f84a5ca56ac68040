"""Whether a student can reach its target, tried with random weights before anything is made for it.

That a graph is legal does not depend on its weights: hours of synthesis and training for a student
that no exporter writes, or whose operators the target lacks, would be lost.
"""

from pathlib import Path

import torch
from torch.nn.functional import normalize

from dfkd_edge.artifacts import StudentArtifact, StudentSettings
from dfkd_edge.config.settings import MINI, PipelineConfig
from dfkd_edge.conversion.conversion import Conversion
from dfkd_edge.errors import ConversionError
from dfkd_edge.files import atomic_write, scratch_folder
from dfkd_edge.interfaces import Reporter
from dfkd_edge.networks.students import build_student, student_entry, student_tensors
from dfkd_edge.plugins import load_exporter
from dfkd_edge.target_profiles.lookup import load_target
from dfkd_edge.target_profiles.profile import TargetProfile

CLASSES, EMBED_DIM, LOGIT_SCALE = tuple("abcde"), 512, 50.0
EVERYWHERE = {
    *(MINI, "resnet18", "convnext_atto", "efficientvit_b0", "repvit_m0_9", "fastvit_t8"),
    *("mobilenetv4_conv_small", "vit_tiny_patch16_224"),
}
"""Students that were exported for a Nano's opset 13 and for newer ones: no trial is needed."""
FROM_OPSET_17 = EVERYWHERE | {
    *("mobilenetv2_100", "mobilenetv3_small_100"),
    *("deit_tiny_patch16_224", "efficientnet_lite0", "efficientformer_l1", "levit_128s"),
    *("mobilevit_xxs", "edgenext_xx_small", "ghostnet_100", "regnetx_002", "tiny_vit_5m_224"),
    *("swin_tiny_patch4_window7_224", "poolformer_s12", "xcit_nano_12_p16_224", "mobileone_s0"),
}
"""Those of the table in examples/measurements/README.md, which was made for opset 17."""


def untrained(name: str, side_px: int, folder: Path) -> StudentArtifact:
    """Save a student with random weights, which are the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head_KD = normalize(torch.randn(len(CLASSES), EMBED_DIM), dim=1)
        student = build_student(name, "random", head_KD, LOGIT_SCALE, side_px).eval()
    settings = StudentSettings(
        student=name,
        timm_name=student.timm_name,
        image_size_px=student.image_size_px,
        classes=CLASSES,
        logit_scale=LOGIT_SCALE,
        embed_dim=EMBED_DIM,
        init="random",
        num_steps=0,
        teacher="none",
        num_parameters=student.num_parameters,
        teacher_num_parameters=0,
    )
    artifact = StudentArtifact(folder, settings)
    artifact.save_settings()
    atomic_write(artifact.weights, student_tensors(student))
    return artifact


def require_exportable(config: PipelineConfig, reporter: Reporter) -> None:
    """Write the ONNX graph of an untrained student, lint it, and ask the parser where it is here.

    Raises:
        ConversionError: the student cannot be exported for the target of the run.
    """
    name, target = config.distillation.student, load_target(config.export.target)
    if is_known(name, target, config.export.opset or target.recommended_opset):
        return
    side_px = student_entry(name, config.distillation.image_size_px).image_size_px
    with scratch_folder() as folder:
        conversion = Conversion(target, config.export, reporter, folder)
        reporter.note(f"  trying whether {target.name} takes the student {name}")
        try:
            model = conversion.to_onnx(untrained(name, side_px, folder), "trial.fp32.onnx")
            if load_exporter("oracle").available():
                conversion.consult_oracle([model])
        except ConversionError as error:
            raise ConversionError(
                f"student '{name}' cannot be exported for {target.name}: {error.what}",
                where="--student",
                hint="choose another student, or name its target: --set export.target=NAME",
            ) from error


def is_known(name: str, target: TargetProfile, opset: int) -> bool:
    """Whether an earlier measurement tells that a student is legal on a target."""
    if target.unsupported_ops or target.use_dla:
        return False
    return name in (FROM_OPSET_17 if opset >= 17 else EVERYWHERE)
