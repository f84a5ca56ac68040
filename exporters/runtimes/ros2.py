"""ROS 2: a node of the bundle's own session code, without torch and without cv_bridge.

Messages are those of ros-perception/vision_msgs: up to 2.x, which foxy has, they are called
Classification2D, and a hypothesis has an `id`; from 3.0 on Classification and `class_id`.
"""

from collections.abc import Mapping

from dfkd_edge.handover.request import Handover
from dfkd_edge.handover.wording import readme

NODE = '''"""Classifies sensor_msgs/Image with this bundle, and publishes vision_msgs/@MESSAGE@.

Needs what check.pyz needs (numpy, Pillow, TensorRT or onnxruntime) and nothing of ours.
"""

import sys
from pathlib import Path

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from vision_msgs.msg import @MESSAGE@, ObjectHypothesis

BUNDLE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(BUNDLE / "check.pyz"))  # the bundle's own code

from dfkd_edge.runtime.bundle_files import damaged_files, read_bundle  # noqa: E402
from dfkd_edge.runtime.engine_session import open_session  # noqa: E402
from dfkd_edge.runtime.faults import Fault  # noqa: E402
from dfkd_edge.runtime.preprocess import resized_images  # noqa: E402
from dfkd_edge.runtime.session import SessionRequest  # noqa: E402

CHANNELS = {
    "rgb8": (3, [0, 1, 2]),
    "bgr8": (3, [2, 1, 0]),
    "rgba8": (4, [0, 1, 2]),
    "bgra8": (4, [2, 1, 0]),
    "mono8": (1, [0, 0, 0]),
}
"""Encoding -> channels a pixel, and where red, green and blue are."""


class Classifier(Node):
    """Answers each picture with the classes that are sure enough, the surest first."""

    def __init__(self):
        super().__init__("classifier")
        self.bundle = read_bundle(BUNDLE)
        for fault in damaged_files(BUNDLE, self.bundle.manifest):
            raise fault
        self.top = self.declare_parameter("top", 1).value
        backend = self.declare_parameter("backend", "auto").value
        self.session = open_session(request(self.bundle, backend), self.get_logger().info)
        self.publisher = self.create_publisher(@MESSAGE@, "classification", 10)
        self.create_subscription(Image, "image", self.classify, qos_profile_sensor_data)
        self.get_logger().info(f"{self.session.backend}, {len(self.bundle.classes)} classes")

    def classify(self, image):
        """Answer one picture; no result says unknown."""
        if image.encoding not in CHANNELS:
            text = f"encoding '{image.encoding}' is none of {', '.join(CHANNELS)}"
            self.get_logger().error(text, throttle_duration_sec=10.0)
            return
        picture = resized_images(pixels(image)[None], self.bundle.side_px)
        logits = self.session.run(picture).logits
        probability = self.bundle.confidence.probabilities(logits)[0]
        message = @MESSAGE@(header=image.header)
        if self.bundle.confidence.is_known(logits)[0]:
            for index in (-probability).argsort()[: self.top]:
                name, score = self.bundle.classes[index], float(probability[index])
                message.results.append(ObjectHypothesis(@ID@=name, score=score))
        self.publisher.publish(message)


def request(bundle, backend):
    """Say what to open: the recommended model of the bundle."""
    return SessionRequest(
        model=bundle.model_path(bundle.precision),
        precision=bundle.precision,
        backend=backend,
        batch=bundle.batch,
        full_range=bundle.manifest.int8_full_range,
        use_dla=bundle.manifest.use_dla,
    )


def pixels(image):
    """Read a message as RGB [height, width, 3]; a row may be longer than its pixels."""
    number, order = CHANNELS[image.encoding]
    rows = np.frombuffer(image.data, np.uint8).reshape(image.height, image.step)
    used = rows[:, : image.width * number].reshape(image.height, image.width, number)
    return np.ascontiguousarray(used[..., order])


def main():
    rclpy.init()
    try:
        rclpy.spin(Classifier())
    except Fault as fault:
        sys.exit(f"error: {fault}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
'''
LAUNCH = '''"""Starts the classifier: ros2 launch ./classify.launch.py image:=/camera/image_raw."""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.substitutions import LaunchConfiguration

NODE = Path(__file__).resolve().parent / "classification_node.py"


def generate_launch_description():
    arguments = {"image": "/image_raw", "classification": "/classification"}
    parameters = {"top": "1", "backend": "auto"}
    command = ["python3", str(NODE), "--ros-args"]
    for name in arguments:
        command += ["-r", [f"{name}:=", LaunchConfiguration(name)]]
    for name in parameters:
        command += ["-p", [f"{name}:=", LaunchConfiguration(name)]]
    declared = [
        DeclareLaunchArgument(name, default_value=value)
        for name, value in {**arguments, **parameters}.items()
    ]
    return LaunchDescription([*declared, ExecuteProcess(cmd=command, output="screen")])
'''


def write(job: Handover) -> Mapping[str, str]:
    """Write node, launch file, labels and README."""
    message, key = ("Classification", "class_id")
    if job.version == "foxy":
        message, key = "Classification2D", "id"
    notes = [
        (
            f"`/classification` is a `vision_msgs/{message}`: `{key}` is the name of the class, "
            "and no result at all says unknown. `top:=5` gives five."
        ),
        f"Needs `ros-{job.version}-vision-msgs`, numpy, Pillow and what `check.pyz` runs on.",
        "The node runs the bundle around it: leave it in its folder.",
        "The first start with TensorRT builds an engine, which is kept: some minutes, once.",
    ]
    return {
        "classification_node.py": NODE.replace("@MESSAGE@", message).replace("@ID@", key),
        "classify.launch.py": LAUNCH,
        "labels.txt": "".join(f"{name}\n" for name in job.classes),
        "README.md": readme(job, "ros2 launch ./classify.launch.py image:=/image_raw", notes),
    }
