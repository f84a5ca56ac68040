"""Isaac ROS: encoder and TensorRT node in one launch file, and a node that decodes the answer.

Rules are those of isaac_ros_dnn_inference v3.2 to v4.5. The TensorRT node builds no Q/DQ graph, and
its `enable_fp16` sets TF32, so the engine is trtexec's. From 4.5 on `dnn_image_encoder.launch.py`
keeps the aspect whatever it is told; the one that squeezes has another name there.
"""

from collections.abc import Mapping

from dfkd_edge.handover.request import Handover
from dfkd_edge.handover.wording import readme

from .engine_command import KEPT, engine_command

FIRST_FUSED_ENCODER = (4, 5)


def write(job: Handover) -> Mapping[str, str]:
    """Write the launch file, the decoder, the labels and the README."""
    notes = [
        "trtexec builds the engine once, where Isaac ROS runs: inside its container if it has one.",
        "The encoder squeezes to the square, and hands over RGB planes of 0 to 255 as `image`.",
        "`/classification` (`vision_msgs/Classification`) has the first class, none for unknown.",
        "`input_width` and `input_height` are the camera's, which must publish `camera_info`, too.",
        KEPT,
    ]
    commands = (
        f"{engine_command(job)}\n"
        "ros2 launch ./classify.launch.py image:=/image_rect camera_info:=/camera_info_rect \\\n"
        "    input_width:=1920 input_height:=1080"
    )
    return {
        "classify.launch.py": _launch(job),
        "classification_node.py": _decoder(job),
        "labels.txt": "".join(f"{name}\n" for name in job.classes),
        "README.md": readme(job, commands, notes),
    }


def _launch(job: Handover) -> str:
    fused = job.release >= FIRST_FUSED_ENCODER
    encoder = "dnn_image_encoder_nodes" if fused else "dnn_image_encoder"
    side = str(job.side_px)
    return f'''"""Isaac ROS {job.version}: camera -> encoder -> TensorRT -> /classification."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import ComposableNodeContainer
from launch_ros.descriptions import ComposableNode

HERE = Path(__file__).resolve().parent
CONTAINER = "classifier_container"


def generate_launch_description():
    encoder = Path(get_package_share_directory("isaac_ros_dnn_image_encoder"))
    return LaunchDescription(
        [
            DeclareLaunchArgument("image", default_value="/image_rect"),
            DeclareLaunchArgument("camera_info", default_value="/camera_info_rect"),
            DeclareLaunchArgument("input_width", default_value="1920"),
            DeclareLaunchArgument("input_height", default_value="1080"),
            ComposableNodeContainer(
                name=CONTAINER,
                namespace="",
                package="rclcpp_components",
                executable="component_container_mt",
                composable_node_descriptions=[tensor_rt()],
                output="screen",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(encoder / "launch" / "{encoder}.launch.py")),
                launch_arguments={{
                    "input_image_width": LaunchConfiguration("input_width"),
                    "input_image_height": LaunchConfiguration("input_height"),
                    "network_image_width": "{side}",
                    "network_image_height": "{side}",
                    # squeezed to the square, as in training
                    "enable_padding": "True",
                    "keep_aspect_ratio": "False",
                    # it divides by 255, this by 1/255: the network takes 0 to 255
                    "image_mean": "[0.0, 0.0, 0.0]",
                    "image_stddev": "{[1 / 255] * 3}",
                    "input_encoding": "rgb8",
                    "image_input_topic": LaunchConfiguration("image"),
                    "camera_info_input_topic": LaunchConfiguration("camera_info"),
                    "tensor_output_topic": "/tensor_pub",
                    "final_tensor_name": "input_tensor",
                    "dnn_image_encoder_namespace": "classifier_encoder",
                    "attach_to_shared_component_container": "True",
                    "component_container_name": CONTAINER,
                }}.items(),
            ),
            ExecuteProcess(
                cmd=["python3", str(HERE / "classification_node.py")], output="screen"
            ),
        ]
    )


def tensor_rt():
    """Run the engine; without a model beside it a missing engine is an error, no silent build."""
    return ComposableNode(
        name="tensor_rt",
        package="isaac_ros_tensor_rt",
        plugin="nvidia::isaac_ros::dnn_inference::TensorRTNode",
        parameters=[
            {{
                "engine_file_path": str(HERE / "{job.plan}"),
                "force_engine_update": False,
                "input_tensor_names": ["input_tensor"],
                "input_binding_names": ["image"],
                "output_tensor_names": ["output_tensor"],
                "output_binding_names": ["probabilities"],
                "max_batch_size": {job.batch[2]},
                "verbose": False,
            }}
        ],
    )
'''


def _decoder(job: Handover) -> str:
    return f'''"""Turns the tensor of the TensorRT node into vision_msgs/Classification."""

from pathlib import Path

import numpy as np
import rclpy
from isaac_ros_tensor_list_interfaces.msg import TensorList
from rclpy.node import Node
from vision_msgs.msg import Classification, ObjectHypothesis

LABELS = (Path(__file__).parent / "labels.txt").read_text(encoding="utf-8").splitlines()
UNKNOWN_BELOW = {job.confidence.reject_threshold!r}


class Decoder(Node):
    """Publishes the first class of each picture; none where the answer is unknown."""

    def __init__(self):
        super().__init__("classification")
        self.publisher = self.create_publisher(Classification, "classification", 10)
        self.create_subscription(TensorList, "tensor_sub", self.decode, 10)

    def decode(self, tensors):
        """Read the probabilities, float32, of the first picture."""
        values = np.frombuffer(tensors.tensors[0].data, np.float32)
        probability = values[: len(LABELS)]
        best = int(probability.argmax())
        message = Classification(header=tensors.header)
        if probability[best] >= UNKNOWN_BELOW:
            score = float(probability[best])
            message.results.append(ObjectHypothesis(class_id=LABELS[best], score=score))
        self.publisher.publish(message)


def main():
    rclpy.init()
    try:
        rclpy.spin(Decoder())
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
'''
