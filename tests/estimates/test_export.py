"""What a dry run of `export` counts beside the graphs."""

import pytest

from dfkd_edge.estimates.export import SMALL_FILES_BYTES, bundle_estimate

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("runtimes", "is_int8", "num_graph_bytes"),
    [
        ((), True, 0),
        (("onnxruntime", "trtexec"), True, 0),  # they read the bundle's own graph
        (("deepstream", "triton", "triton"), True, 2 * MILLION),
        (("deepstream", "triton"), False, 8 * MILLION),
    ],
)
def test_the_disk_of_a_bundle_holds_its_student_and_a_graph_of_each_runtime_that_has_one(
    runtimes: tuple[str, ...], is_int8: bool, num_graph_bytes: int
) -> None:
    found = bundle_estimate(runtimes, MILLION, is_int8)
    assert found.disk_bytes == 4 * MILLION + SMALL_FILES_BYTES + num_graph_bytes
