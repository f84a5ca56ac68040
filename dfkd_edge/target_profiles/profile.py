"""What a target can do: a module joined with a JetPack, or a CPU board; data only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

Precision = Literal["fp32", "fp16", "int8"]
Backend = Literal["tensorrt", "onnxruntime"]
Typing = Literal["weak", "strong"]
GraphInput = Literal["uint8", "float32"]
Feed = Literal["bundle", "pixels", "planes", "imagenet"]
"""What a runtime hands to the network: what the bundle's own graph takes; float32 NCHW of 0 to 255;
or the same normalised with ImageNet's mean and deviation."""
Evidence = Literal["sourced", "derived", "unverified"]
FULL_RANGE, REDUCED_RANGE = 127, 64
"""Largest magnitudes of a weight: -128 is left out, so that the range is symmetric; two products
of 255 * 64 just fit the 16-bit sums of x86 without VNNI."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerMode:
    """One nvpmodel mode."""

    id: int  # nvpmodel's number
    name: str  # nvpmodel's name
    is_default: bool = False  # Whether the board boots in it


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizationSpec:
    """How an INT8 graph must look on a target."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str  # `tensorrt-qdq`, `ort-x86-u8s8`, `ort-arm-u8s8`
    activation_dtype: Literal["int8", "uint8"]  # Type of quantized activations, one scale a tensor
    activation_symmetric: bool  # Whether the zero point is 0
    weight_dtype: Literal["int8", "uint8"] = "int8"  # Type of quantized weights, symmetric
    per_channel: bool = True  # One weight scale an output channel
    bias_dtype: Literal["float32", "int32"] = "float32"
    """int32 biases behind a DequantizeLinear are rejected by TensorRT."""
    quantize_outputs: bool = False  # Whether outputs of weighted layers get Q/DQ of their own
    reduce_range: bool = False  # 7-bit weights for x86 without VNNI, whose 16-bit sums saturate

    def weight_limit(self, is_depthwise: bool) -> int:
        """Largest magnitude of a weight; depthwise kernels sum in 32 bits on every CPU."""
        return REDUCED_RANGE if self.reduce_range and not is_depthwise else FULL_RANGE


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One field of a target as a person reads it."""

    value: str
    source: str
    evidence: Evidence


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetProfile:
    """Module x JetPack, or a CPU board: what the exporters, the lint and the device check obey."""

    name: str  # `orin-nano-8gb-super@jp6.2`, `x86-cpu`
    module: str  # Name of the module or board
    jetpack: str | None  # `6.2`; None for CPU boards
    family: str  # `nano`, `tx2`, `xavier`, `orin`, `thor`, `x86`, `arm`
    backend: Backend  # Runtime that executes the model on the device
    sm: int | None = None  # CUDA compute capability, 87 = 8.7
    ram_gib: float | None = None  # Memory of the module, shared by CPU and GPU on a Jetson
    tensorrt: str | None = None  # TensorRT version of the JetPack, `10.3.0.30`
    python: str | None = None  # Python version on the device
    max_onnxruntime: str | None = None  # Newest onnxruntime wheel for that Python
    recommended_opset: int  # ONNX opset that export writes
    max_opset: int  # Newest opset that the parser knows
    max_ir: int  # Newest ONNX IR version that is safe
    precisions: tuple[Precision, ...]  # What the hardware computes in, best last
    typing: Typing | None = None  # TensorRT typing: `strong` needs the precision in the graph
    use_dla: bool = False  # Run on the deep learning accelerator (DLA) instead of the GPU
    graph_input: GraphInput = "uint8"
    """Type of the pixels, 0 to 255, that the graph takes: before TensorRT 8.5 there is no UINT8."""
    unsupported_ops: tuple[str, ...] = ()  # ONNX operators that this TensorRT's parser refuses
    quantization: QuantizationSpec | None = None  # None where INT8 does not exist
    no_int8_reason: str = ""  # Why there is no INT8, for the user
    min_calibration_images: int = 500  # Fewer are refused
    power_modes: tuple[PowerMode, ...] = ()  # nvpmodel modes
    caveats: tuple[str, ...] = ()  # Known faults of this combination
    facts: Mapping[str, Fact] = field(default_factory=dict)
    """Every field of the data files with its source, for `targets show`."""

    @property
    def machine(self) -> str:
        """Processor architecture, as `uname -m` has it."""
        return "x86_64" if self.family == "x86" else "aarch64"

    @property
    def best_precision(self) -> Precision:
        """What export makes by default."""
        return self.precisions[-1]
