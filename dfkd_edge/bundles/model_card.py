"""README.md of a bundle: a model card as the Hugging Face hub reads it; the folder can be pushed.

The front matter is YAML; every value is written as JSON, which is YAML too, so that no name can
break it.
"""

import json
import re
from collections.abc import Sequence

from dfkd_edge.artifacts import StudentSettings
from dfkd_edge.config.settings import MINI
from dfkd_edge.networks.licences import NO_WEIGHTS, OWN, ModelLicence
from dfkd_edge.networks.students import STUDENTS
from dfkd_edge.results.ladder import Ladder
from dfkd_edge.results.wording import METRICS
from dfkd_edge.runtime.caveats import GATE_FAILED
from dfkd_edge.runtime.plain_text import printable
from dfkd_edge.target_profiles.profile import Precision, TargetProfile
from dfkd_edge.version import __version__

MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+.!|~&-])")
TAGS = ("image-classification", "data-free-distillation", "knowledge-distillation", "clip", "onnx")

CONTENTS = """## What lies here

- `model.*.onnx`, `preprocess.json`, `classes.txt`: the graphs, what they take, what they name
- `recipe.md`, `build.sh`: how an engine is built and timed on the device by hand
- `runtimes/`, where it was asked for: configuration and README for DeepStream, Triton and others
- `golden.npz`, `test_card.png`, `check.pyz`: the proof on the device
- `validation.json`, `calibration.json`: what was measured, and from what INT8 took its ranges
- `manifest.json`: a hash of every file; `model.sig`: the maker's signature, where there is one
- `sbom.cdx.json`, `LICENSES.txt`: what it was made with, and under which terms

On a host `dfkd-edge inspect .` compares every file with its hash, and
`dfkd-edge check . --verify PUBLIC_KEY.pem` the signature with its maker's key.
"""


def model_card(
    settings: StudentSettings,
    sources: Sequence[ModelLicence],
    target: TargetProfile,
    precision: Precision,
    ladder: Ladder,
) -> str:
    """Write the card of a bundle whose student learnt from the `sources`."""
    assert ladder.gate, "only `export` writes cards, and it judges"
    front = "".join(
        f"{key}: {printable(json.dumps(value, ensure_ascii=False))}\n"
        for key, value in _front_matter(settings, sources, target, precision, ladder).items()
    )
    classes = ", ".join(escaped(name) for name in settings.classes)
    told = (*ladder.collapse_notes(), *ladder.notes)  # the card shows no times to warn of
    notes = "".join(f" {escaped(note[:1].upper() + note[1:])}." for note in told)
    side_px, teacher = settings.image_size_px, escaped(settings.teacher)
    learnt = "\n".join(f"- {escaped(str(source))}" for source in sources)
    failed = f"**{GATE_FAILED}.**\n\n" if not ladder.gate.passed else ""
    return f"""---
{front}---

{failed}# {escaped(settings.timm_name)} for {escaped(target.name)}, {precision.upper()}

An image classifier with {len(settings.classes)} classes and {settings.num_parameters:,}
parameters, distilled from the CLIP teacher {teacher} by dfkd-edge {__version__}, which starts from
the names of the classes.

**Classes:** {classes}

**Input:** RGB, {target.graph_input} of 0 to 255, NHWC, {side_px} x {side_px} px; normalisation
is inside the graph and `preprocess.json` is the contract. **Outputs:** logits,
probabilities and the embedding.

## What was measured

{_table(ladder)}

Measured on {escaped(ladder.images)}. Gate: {escaped(ladder.gate.word)}; \
{escaped(ladder.gate.sentence())}.{notes}

## Use

`dfkd-edge predict . photo.jpg` on a host; `python3 check.pyz` proves it on the device
(Python 3.8 or later). Names say nothing about your pictures: measure on some of your own
(`dfkd-edge check . --data DIR`) before you rely on it.

{CONTENTS}
## Whose work it learnt from

{learnt}

`LICENSES.txt` states whose work is inside, `sbom.cdx.json` with what it was made.
"""


def escaped(text: str) -> str:
    """Write a text so that Markdown shows it as it is, on one line."""
    return MARKDOWN.sub(r"\\\1", printable(" ".join(str(text).split())))


def _front_matter(
    settings: StudentSettings,
    sources: Sequence[ModelLicence],
    target: TargetProfile,
    precision: Precision,
    ladder: Ladder,
) -> dict[str, object]:
    front: dict[str, object] = {"license": "apache-2.0"}
    # a teacher's terms reach its student, and those of a pipeline may reach its pictures
    if settings.student != MINI or any(source.terms not in (OWN, NO_WEIGHTS) for source in sources):
        front = {"license": "other", "license_name": "mixed", "license_link": "LICENSES.txt"}
    front |= {
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": [*TAGS, precision, target.family],
    }
    if ladder.metric == "top1":  # agreement with a teacher is no accuracy
        results = [
            {
                "task": {"type": "image-classification"},
                "dataset": {"name": domain, "type": "imagefolder"},
                "metrics": [{"type": "accuracy", "name": ladder.shipped.name, "value": part.top1}],
            }
            for domain, part in ladder.shipped.domains.items()
        ]
        front["model-index"] = [{"name": settings.timm_name, "results": results}]
    return front


def _table(ladder: Ladder) -> str:
    heading = METRICS[ladder.metric]
    names = " | ".join(escaped(rung.name) for rung in ladder.rungs)
    lines = [f"| {heading} | {names} |", "|---" * (len(ladder.rungs) + 1) + "|"]
    for domain, first in ladder.rungs[0].domains.items():
        shares = (rung.domains[domain].share(ladder.metric) for rung in ladder.rungs)
        figures = " | ".join(f"{share:.1%}" for share in shares)
        lines.append(f"| {escaped(ladder.label(domain))} ({first.num_images:,}) | {figures} |")
    return "\n".join(lines)


def licenses_text(settings: StudentSettings, sources: Sequence[ModelLicence]) -> str:
    """State the licences that travel with a bundle whose student learnt from the `sources`."""
    entry = STUDENTS.get(settings.student)
    terms = entry.license if entry else "see the model's page in timm"
    source = (
        "dfkd-edge's own, Apache-2.0; their training pictures have terms of their own and are "
        "not contained"
        if settings.student == MINI
        else f"timm's pretrained weights, {terms}; ImageNet's terms may apply to their use"
    )
    start = f"start weights: {source}\n" if settings.init == "pretrained" else ""
    learnt = "\n".join(f"learnt from {source}" for source in sources)
    return f"""What is in this bundle and under which terms.

check.pyz and the graphs' input and output layers: dfkd-edge {__version__}, Apache-2.0
network: timm {settings.timm_name}, {terms}
{start}{learnt}
their terms apply to what was learnt from them, as far as the law lets them
golden images: synthesized; those that show drawings of icon sets are left out
"""
