"""A bundle for a Jetson with every runtime, exported once; and jobs for any target and list."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dfkd_edge.handover.lookup import list_runtimes, load_runtime
from dfkd_edge.handover.request import Handover
from dfkd_edge.runtime.bundle_files import Bundle, read_bundle
from dfkd_edge.runtime.confidence import Confidence
from dfkd_edge.target_profiles.lookup import load_target
from dfkd_edge.target_profiles.profile import Precision
from tests.fixtures.command import invoke
from tests.fixtures.exported import only_few_images

CONTENT = "0123456789ab"
MakeJob = Callable[..., Handover]
EVERY = tuple(list_runtimes())
runtimes, targets = functools.cache(load_runtime), functools.cache(load_target)
"""Read once: hundreds of jobs are made of them."""


@pytest.fixture(scope="session")
def jetson_bundle(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An INT8 bundle for the JetPack of the default target; tests write into copies."""
    folder = tmp_path_factory.mktemp("handover") / "jetson"
    flags = [flag for name in EVERY for flag in ("--runtime", name)]
    with only_few_images():
        given = (
            "export",
            finished_run,
            "--target",
            "jetson",
            "--no-repair",
            "--max-drop",
            "1",
            "-o",
            folder,
        )
        result = invoke(*given, "--json", *flags)
    assert result.exit_code == 0, result.exception
    assert json.loads(result.stdout)["bundle"] == str(folder)
    return read_bundle(folder)


@pytest.fixture(scope="session")
def make_job() -> MakeJob:
    """Return what makes jobs without a model: writers of texts ask for none."""

    def make(
        name: str,
        target: str = "jetson",
        precision: Precision = "fp32",
        classes: Sequence[str] = ("dog", "house"),
        batch: tuple[int, int, int] = (1, 1, 1),
        use_dla: bool = False,
    ) -> Handover:
        runtime, profile = runtimes(name), targets(target)
        return Handover(
            profile=runtime.profile,
            version=runtime.profile.require(profile),
            target=dataclasses.replace(profile, use_dla=use_dla),
            classes=tuple(classes),
            side_px=64,
            batch=batch,
            precision=precision,
            proven=precision,
            graph="fp32" if precision == "fp16" else precision,
            content=CONTENT,
            embed_dim=16,
            confidence=Confidence(2.0, 0.4),
        )

    return make
