import dataclasses
import functools
import time

import pytest

from dfkd_edge.runtime.caveats import FP16_IN_ENGINE, graph_notes, time_caveats
from dfkd_edge.runtime.device import TO_INSTALL
from dfkd_edge.runtime.faults import UsageFault
from dfkd_edge.runtime.timing import TimingRequest, measure


def test_times_that_differ_are_called_unsteady_and_equal_ones_are_not() -> None:
    pauses_s = iter([0.0, *[0.0, 0.004] * 20])
    request = TimingRequest(warmup_ms=0, duration_s=0, percentiles=(50.0,))
    latency = measure(lambda: time.sleep(next(pauses_s)), 1, request)
    (doubt,) = latency.unsteadiness
    assert doubt == f"unsteady: deviation is {latency.variation:.2f} of the mean"
    assert dataclasses.replace(latency, variation=0.1).unsteadiness == []


@pytest.mark.parametrize(
    ("precision", "backend", "graph_for", "in_float", "said"),
    [
        ("int8", "onnxruntime", "tensorrt", False, "onnxruntime computes most layers of an INT8"),
        ("fp16", "onnxruntime", "tensorrt", False, "onnxruntime computes most layers of an FP16"),
        ("int8", "onnxruntime", "tensorrt", True, "8-bit sums of this CPU saturate"),
        ("fp32", "onnxruntime", "tensorrt", False, None),
        ("int8", "onnxruntime", "onnxruntime", False, None),
        ("int8", "tensorrt", "tensorrt", False, None),
    ],
)
def test_a_graph_meant_for_another_runtime_is_no_measure_of_its_precision(
    precision: str, backend: str, graph_for: str, in_float: bool, said: str | None
) -> None:
    caveats = time_caveats(precision, backend, graph_for, in_float)
    assert [caveat[: len(said or "")] for caveat in caveats] == ([said] if said else [])


def test_how_to_get_to_the_time_that_counts_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for machine, advice in (("x86_64", "check.pyz on the device"), ("aarch64", TO_INSTALL)):
        monkeypatch.setattr("platform.machine", functools.partial(str, machine))
        (caveat,) = time_caveats("int8", "onnxruntime", "tensorrt", in_float=False)
        assert advice in caveat


def test_only_an_fp16_bundle_without_an_fp16_graph_has_fp16_in_the_engine_alone() -> None:
    assert graph_notes("fp16", ("fp32",)) == [FP16_IN_ENGINE]
    assert graph_notes("fp16", ("fp32", "fp16")) == graph_notes("int8", ("fp32", "int8")) == []


def test_what_is_told_while_timing_counts_for_no_inference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, told = [0.0], []
    monkeypatch.setattr("dfkd_edge.runtime.timing.time.perf_counter", lambda: clock[0])

    def infer() -> None:
        clock[0] += 0.01

    def tell(seconds: float) -> None:
        told.append(seconds)
        clock[0] += 5

    latency = measure(infer, 2, TimingRequest(warmup_ms=0, duration_s=0), tell)
    assert len(told) == latency.num_iterations == 20
    assert latency.max_ms == pytest.approx(10)
    assert latency.throughput_per_s == pytest.approx(200)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_time_that_never_ends_is_refused(value: float) -> None:
    for times in ((value, 3.0), (200.0, value)):
        with pytest.raises(UsageFault, match="no time from nothing to an hour"):
            TimingRequest(*times)
