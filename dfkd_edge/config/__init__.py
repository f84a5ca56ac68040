"""Settings: one frozen dataclass a stage. Reading and writing them is `config.file`."""

from dfkd_edge.config.settings import (
    DistillationConfig,
    ExportConfig,
    FewShotConfig,
    PipelineConfig,
    PromptConfig,
    PromptMethod,
    StudentInit,
    SynthesisConfig,
    SynthesisMethod,
    TeacherConfig,
)

__all__ = [
    "DistillationConfig",
    "ExportConfig",
    "FewShotConfig",
    "PipelineConfig",
    "PromptConfig",
    "PromptMethod",
    "StudentInit",
    "SynthesisConfig",
    "SynthesisMethod",
    "TeacherConfig",
]
