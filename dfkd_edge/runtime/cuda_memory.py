"""The few CUDA calls that a TensorRT session needs, through ctypes: no pycuda on the device."""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_void_p
from pathlib import Path

from dfkd_edge.runtime.faults import LackingFault

TO_SEE = "install JetPack's CUDA; a container is started with --runtime nvidia"
# without a number it comes with the development package alone; the others are JetPack 7 to 4
LIBRARIES = tuple(f"libcudart.so{number}" for number in ("", ".13", ".12", ".11.0", ".10.2"))
FOLDERS = ("", "/usr/local/cuda/lib64/")  # The loader's own search path first
IN_PACKAGES = "nvidia/*/lib/libcudart.so.*"  # Of wheels, which the system's loader does not search
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2  # Of cudaMemcpyKind
ATTRIBUTE_MAJOR, ATTRIBUTE_MINOR = 75, 76  # Of cudaDeviceAttr: compute capability, by halves


class Cuda:
    """The CUDA runtime of this machine."""

    def __init__(self) -> None:
        """Load the library and look for a device.

        Raises:
            LackingFault: there is no CUDA runtime or no device.
        """
        self._library = _load()
        count = c_int()
        if self._library.cudaGetDeviceCount(byref(count)) or not count.value:
            raise LackingFault("no CUDA device answers", hint=TO_SEE)

    def compute_capability(self) -> int:
        """SM of device 0, 87 for 8.7."""
        major, minor = c_int(), c_int()  # out parameters: what is returned is the status
        self._call("cudaDeviceGetAttribute", byref(major), ATTRIBUTE_MAJOR, 0)
        self._call("cudaDeviceGetAttribute", byref(minor), ATTRIBUTE_MINOR, 0)
        return major.value * 10 + minor.value

    def free_bytes(self) -> int:
        """Memory that the device could still give."""
        free, total = c_size_t(), c_size_t()
        self._call("cudaMemGetInfo", byref(free), byref(total))
        return int(free.value)

    def stream(self) -> int:
        """Make a stream."""
        handle = c_void_p()
        self._call("cudaStreamCreate", byref(handle))
        return handle.value or 0  # ctypes reads a null pointer as None

    def allocate(self, num_bytes: int) -> int:
        """Allocate device memory and return its address."""
        address = c_void_p()
        self._call("cudaMalloc", byref(address), c_size_t(num_bytes))
        return address.value or 0

    def release(self, address: int) -> None:
        """Free device memory."""
        self._call("cudaFree", c_void_p(address))

    def release_stream(self, stream: int) -> None:
        """Destroy a stream."""
        self._call("cudaStreamDestroy", c_void_p(stream))

    def copy(self, to: int, source: int, num_bytes: int, kind: int, stream: int) -> None:
        """Copy between two addresses in the order of the stream; the kind is one of the above."""
        # ctypes passes a plain Python int as 32 bits, which would cut an address
        where, to_copy = (c_void_p(to), c_void_p(source)), (c_size_t(num_bytes), c_int(kind))
        self._call("cudaMemcpyAsync", *where, *to_copy, c_void_p(stream))

    def wait(self, stream: int) -> None:
        """Wait until the stream is done."""
        self._call("cudaStreamSynchronize", c_void_p(stream))

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            text = self._library.cudaGetErrorString(status) or b""
            raise LackingFault(f"CUDA: {text.decode(errors='replace')}", name)


def _load() -> ctypes.CDLL:
    places = [folder + name for folder in FOLDERS for name in LIBRARIES]
    places += [str(file) for packages in sys.path for file in Path(packages).glob(IN_PACKAGES)]
    for place in places:
        try:
            library = ctypes.CDLL(place)
        except OSError:
            continue
        library.cudaGetErrorString.restype = c_char_p  # the default, int, cuts a pointer
        library.cudaGetErrorString.argtypes = [c_int]
        library.cudaGetDeviceCount.argtypes = [POINTER(c_int)]
        return library
    raise LackingFault("no CUDA runtime library", "libcudart.so", TO_SEE)
