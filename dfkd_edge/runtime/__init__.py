"""What runs on the device: Python 3.8 to 3.13, standard library and numpy, nothing else of ours.

TensorRT or onnxruntime is imported when a session opens, Pillow when a picture is read. The folder
is zipped into every bundle as check.pyz, and the core imports it for the same things: hashes,
the preprocessing contract, timing.
"""

import os

# onnxruntime 1.32 gives the machine an identity and keeps events of use to send, on Linux too;
# whoever imports it first, a library of ours included, shall not
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
