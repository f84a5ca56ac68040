"""Stand-ins of the modules that only a robot or a Jetson has, as far as our programs use them.

Messages and operators refuse a field or a parameter that the real ones do not have.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np

TENSOR_RT = {
    *("model_file_path", "engine_file_path", "input_tensor_names", "input_binding_names"),
    *("input_tensor_formats", "output_tensor_names", "output_binding_names"),
    *("output_tensor_formats", "force_engine_update", "verbose", "max_workspace_size"),
    *("dla_core", "max_batch_size", "enable_fp16", "relaxed_dimension_check"),
}
"""What TensorRTNode of isaac_ros_tensor_rt declares, v3.2 to v4.5."""
ENCODER = {
    *("input_image_width", "input_image_height", "network_image_width", "network_image_height"),
    *("image_mean", "image_stddev", "enable_padding", "keep_aspect_ratio", "crop_mode"),
    *("input_encoding", "encoding_desired", "tensor_name", "final_tensor_name", "num_blocks"),
    *("dnn_image_encoder_namespace", "image_input_topic", "camera_info_input_topic"),
    *("tensor_output_topic", "attach_to_shared_component_container", "component_container_name"),
}
"""What the launch file of the encoder's separate nodes reads."""
OPERATORS = {
    "FormatConverterOp": {
        *("pool", "in_dtype", "in_tensor_name", "out_dtype", "out_tensor_name", "scale_min"),
        *("scale_max", "alpha_value", "resize_width", "resize_height", "resize_mode"),
        *("out_channel_order", "cuda_stream_pool"),
    },
    "InferenceOp": {
        *("backend", "backend_map", "model_path_map", "device_map", "temporal_map", "allocator"),
        *("pre_processor_map", "inference_map", "infer_on_cpu", "is_engine_path", "enable_fp16"),
        *("input_on_cuda", "output_on_cuda", "transmit_on_cuda", "parallel_inference"),
    },
    "V4L2VideoCaptureOp": {
        "allocator",
        "device",
        "width",
        "height",
        "pixel_format",
        "pass_through",
    },
}
"""Parameters of Holoscan's operators, v2.6 to v3.10."""


class Recorded(SimpleNamespace):
    """Whatever it is made with, by name and in order."""

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(args=args, **fields)


def message(name: str, **defaults: Any) -> type:
    """Make a class of messages, which knows these fields alone."""

    def init(self: Any, **fields: Any) -> None:
        assert fields.keys() <= defaults.keys(), f"{name} has no {fields.keys() - defaults.keys()}"
        for key, value in {**defaults, **fields}.items():
            setattr(self, key, list(value) if isinstance(value, list) else value)

    return type(name, (), {"__init__": init})


class Node:
    """What a node publishes, subscribes to and logs."""

    parameters: ClassVar[dict[str, Any]] = {}

    def __init__(self, name: str) -> None:
        self.name, self.published, self.logged = name, list[Any](), list[str]()
        self.callbacks: dict[str, Any] = {}

    def declare_parameter(self, name: str, default: Any) -> Any:
        return SimpleNamespace(value=self.parameters.get(name, default))

    def create_publisher(self, kind: type, topic: str, depth: int) -> Any:
        def publish(message: Any) -> None:
            assert isinstance(message, kind)
            self.published.append(message)

        return SimpleNamespace(publish=publish, topic=topic)

    def create_subscription(self, kind: type, topic: str, callback: Any, qos: Any) -> None:
        self.callbacks[topic] = callback

    def get_logger(self) -> Any:
        def log(text: str, throttle_duration_sec: float = 0) -> None:
            self.logged.append(text)

        return SimpleNamespace(info=log, error=log)


class Operator:
    """An operator of Holoscan, made with a fragment, conditions and parameters."""

    def __init__(self, fragment: Any, *conditions: Any, name: str, **parameters: Any) -> None:
        known = OPERATORS.get(type(self).__name__)
        assert known is None or parameters.keys() <= known, parameters
        self.name, self.parameters = name, parameters


class Application:
    """An application of Holoscan: its flows are recorded."""

    def __init__(self) -> None:
        self.flows: list[tuple[Any, Any, Any]] = []

    def config(self, path: str) -> None:
        import yaml  # type: ignore[import-untyped]

        self.settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))

    def kwargs(self, name: str) -> dict[str, Any]:
        return dict(self.settings[name])

    def add_flow(self, source: Any, sink: Any, ports: Any) -> None:
        self.flows.append((source, sink, ports))


def modules() -> dict[str, ModuleType]:
    """Every stand-in by the name of its module."""
    image = message("Image", header="", height=0, width=0, encoding="", step=0, data=b"")
    found: dict[str, dict[str, Any]] = {
        "rclpy": {"init": lambda: None, "spin": lambda node: None},
        "rclpy.node": {"Node": Node},
        "rclpy.qos": {"qos_profile_sensor_data": "best effort"},
        "sensor_msgs.msg": {"Image": image},
        "isaac_ros_tensor_list_interfaces.msg": {
            "TensorList": message("TensorList", header="", tensors=[])
        },
        "vision_msgs.msg": {
            "Classification": message("Classification", header="", results=[]),
            "ObjectHypothesis": message("ObjectHypothesis", class_id="", score=0.0),
        },
        "ament_index_python.packages": {"get_package_share_directory": lambda name: f"/{name}"},
        "launch": {"LaunchDescription": Recorded},
        "launch.actions": dict.fromkeys(
            ("DeclareLaunchArgument", "ExecuteProcess", "IncludeLaunchDescription"), Recorded
        ),
        "launch.launch_description_sources": {"PythonLaunchDescriptionSource": Recorded},
        "launch.substitutions": {"LaunchConfiguration": Recorded},
        "launch_ros.actions": {"ComposableNodeContainer": Recorded},
        "launch_ros.descriptions": {"ComposableNode": Recorded},
        "holoscan.conditions": {"CountCondition": Recorded},
        "holoscan.core": {
            "Application": Application,
            "Operator": Operator,
            "OperatorSpec": SimpleNamespace,
        },
        "holoscan.operators": {name: type(name, (Operator,), {}) for name in OPERATORS},
        "holoscan.resources": {"UnboundedAllocator": Recorded},
    }
    made = dict[str, ModuleType]()
    for name, members in found.items():
        for parent in (name.partition(".")[0], name):
            made.setdefault(parent, ModuleType(parent))
        made[name].__dict__.update(members)
    return made


def load(path: Path) -> ModuleType:
    """Load a program of a bundle by its path; the stand-ins are there."""
    spec = importlib.util.spec_from_file_location(path.name.replace(".", "_"), path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def classify_in_ros(path: Path, pictures: dict[str, Any]) -> dict[str, Any]:
    """Load the ROS 2 node and hand it pictures, by encoding; returns what it publishes and logs."""
    sys.modules |= modules()
    program = load(path)
    node = program.Classifier()
    image = sys.modules["sensor_msgs.msg"].Image
    for encoding, pixels in pictures.items():
        height, width = pixels.shape[:2]
        rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, 5)))  # rows longer than their pixels
        node.callbacks["image"](
            image(
                header=encoding,
                encoding=encoding,
                height=height,
                width=width,
                step=rows.shape[1],
                data=rows.tobytes(),
            )
        )
    return {
        "answers": {
            sent.header: [(result.class_id, result.score) for result in sent.results]
            for sent in node.published
        },
        "logged": node.logged,
        "code": str(sys.modules["dfkd_edge.runtime.session"].__file__),
    }
