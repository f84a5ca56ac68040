"""sbom.cdx.json of a bundle: the models and packages that it was made with, as CycloneDX 1.6.

Written by hand: the document is a few nested objects, its library is no dependency of the product
but judges them in a test. It has neither serial number nor time of day: equal bundles, equal bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dfkd_edge import assets
from dfkd_edge.config.settings import MINI, PipelineConfig
from dfkd_edge.files import file_hash
from dfkd_edge.machine.packages import Package, installed_packages
from dfkd_edge.networks.licences import NO_WEIGHTS, OWN, UNKNOWN, licences_of
from dfkd_edge.networks.students import STUDENTS
from dfkd_edge.runs.finished import FinishedRun
from dfkd_edge.runs.key import teacher_content
from dfkd_edge.target_profiles.profile import Precision, TargetProfile
from dfkd_edge.version import __version__

SPEC_VERSION = "1.6"
SPDX_IDS = frozenset(
    {"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0", "PSF-2.0"}
)
"""Identifiers that CycloneDX takes for such; any other text is a name."""
DRAWN = "Apache-2.0 AND CC-BY-4.0 AND CC-BY-3.0 AND MIT AND ISC AND CC0-1.0"
"""Of the icon sets of the decoder's memory; assets/LICENSES.md says whose."""
SHA256 = re.compile(r"[0-9a-f]{64}")
Component = dict[str, Any]


def bill_of_materials(
    run: FinishedRun,
    target: TargetProfile,
    precision: Precision,
    *,
    fitted_to_drawings: bool = False,
) -> dict[str, Any]:
    """List what a bundle was made with: models with licences and hashes, packages with versions.

    The packages are those of the machine that exports; a run may come from another one.
    """
    packages = installed_packages(_extras(run.config))
    models = list(_models(run))
    if fitted_to_drawings or (run.surrogates.drawing_index >= 0).any():
        sheets = sorted(assets.EXEMPLARS.glob("*.webp"))
        models.append(_files("data", "drawings of icon sets", DRAWN, sheets))
    tool = _component("application", "dfkd-edge", terms=OWN, version=__version__)
    bundle = _component(
        "machine-learning-model",
        f"{run.student.settings.timm_name} for {target.name}",
        properties={"precision": precision, "packages": "of the machine that exported"},
    )
    made_with = [*(model["bom-ref"] for model in models), tool["bom-ref"]]
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {"tools": {"components": [tool]}, "component": bundle},
        "components": [*models, *map(_library, packages)],
        "dependencies": [
            {"ref": bundle["bom-ref"], "dependsOn": made_with},
            {"ref": tool["bom-ref"], "dependsOn": [_purl(package) for package in packages]},
            *_dependencies(packages),
        ],
    }


def _extras(config: PipelineConfig) -> list[str]:
    """Name the extras that took part: of the teacher and of the images."""
    drawn = ["diffusion"] * (config.synthesis.method == "diffusion")
    return drawn + ["siglip"] * ("siglip" in config.teacher.name.lower())


def _models(run: FinishedRun) -> Iterator[Component]:
    config, settings = run.config, run.student.settings
    entry = STUDENTS.get(settings.student)
    terms = OWN if settings.student == MINI else entry.license if entry else UNKNOWN
    yield _model(f"student {settings.timm_name}", terms, [run.student.weights])
    if settings.init == "pretrained":
        yield _model(f"start of the student {settings.student}", terms, _start_files(config))
    for source in licences_of(config):
        if source.terms == NO_WEIGHTS:
            continue
        files, content = _source_files(source.role, config), ""
        if source.role == "teacher" and not files:
            content = teacher_content(config.teacher)
        yield _model(f"{source.role} {source.model}", source.terms, files, content)


def _source_files(role: str, config: PipelineConfig) -> list[Path]:
    """Weight files of a teacher or decoder that lie on this machine under a known name."""
    from dfkd_edge.networks.weights import teacher_weights

    if role == "teacher" and config.teacher.name == MINI:
        return sorted(assets.TEACHER.glob("*.safetensors"))
    if role == "teacher":
        own = [Path(config.teacher.pretrained)] if config.teacher.pretrained else []
        fetched = [weights.path for weights in teacher_weights(config.teacher)]
        return [path for path in (*own, *fetched) if path and path.is_file()]
    if role == "decoder" and config.synthesis.decoder == MINI:
        return sorted(assets.DECODER.glob("*.safetensors"))
    named = Path(config.synthesis.decoder)
    return [named] if role == "decoder" and named.is_file() else []


def _start_files(config: PipelineConfig) -> list[Path]:
    from dfkd_edge.networks.weights import start_weights

    if config.distillation.student == MINI:
        return [assets.START_WEIGHTS]
    return [w.path for w in start_weights(config.distillation) if w.path]


def _model(name: str, terms: str, files: list[Path], content: str = "") -> Component:
    return _files("machine-learning-model", name, terms, files, content)


def _files(kind: str, name: str, terms: str, files: list[Path], content: str = "") -> Component:
    """Describe what lies in one file, or in several with a hash each."""
    properties = {"content": content} if content else {}
    found = _component(kind, name, terms, properties=properties)
    parts = []
    for path in files:
        part = {
            "type": "file",
            "bom-ref": f"{found['bom-ref']}/{path.name}",
            "name": path.name,
            "hashes": [{"alg": "SHA-256", "content": _sha256(path)}],
        }
        parts.append(part)
    if len(parts) == 1:
        found["hashes"] = parts[0]["hashes"]
    elif parts:
        found["components"] = parts
    return found


def _sha256(path: Path) -> str:
    """Hash a file; the hub's cache calls large ones by their hash, which spares reading them."""
    named = path.resolve().name
    return named if SHA256.fullmatch(named) else file_hash(path)


def _component(
    kind: str,
    name: str,
    terms: str = "",
    *,
    version: str = "",
    properties: dict[str, str] | None = None,
) -> Component:
    found: Component = {"type": kind, "bom-ref": name, "name": name}
    if version:
        found["version"] = version
    if terms and terms != UNKNOWN:
        found["licenses"] = _licences(terms)
    if properties:
        found["properties"] = [
            {"name": f"dfkd-edge:{key}", "value": value} for key, value in properties.items()
        ]
    return found


def _licences(terms: str) -> list[Component]:
    plain = "Apache-2.0" if terms == OWN else terms
    if plain in SPDX_IDS:
        return [{"license": {"id": plain}}]
    if " AND " in plain or " OR " in plain or " WITH " in plain:
        return [{"expression": plain}]
    return [{"license": {"name": plain}}]


def _library(package: Package) -> Component:
    found = _component("library", package.name, package.licence, version=package.version)
    return {**found, "bom-ref": _purl(package), "purl": _purl(package)}


def _purl(package: Package) -> str:
    return f"pkg:pypi/{package.name}@{package.version.replace('+', '%2B')}"


def _dependencies(packages: Iterable[Package]) -> list[Component]:
    purls = {package.name: _purl(package) for package in packages}
    return [
        {"ref": purls[package.name], "dependsOn": [purls[name] for name in package.requires]}
        for package in packages
    ]
