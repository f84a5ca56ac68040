"""What verbs share: types of options, the settings that flags name, the document of `--json`.

Typer reads the annotations at run time, so it needs objects in them, not strings.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, get_args

from typer import Argument, Context, Option

from dfkd_edge.config.file import FLAGS, Settings, settings_of
from dfkd_edge.config.settings import ExportConfig, PipelineConfig, SynthesisMethod
from dfkd_edge.runtime.plain_text import printable

Text = str | None
Number = int | None
File = Path | None
Texts = list[str] | None

_NAMES: tuple[str, ...] = get_args(SynthesisMethod)

AsJson = Annotated[bool, Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="Print results only.")]
Verbose = Annotated[bool, Option("--verbose", "-v", help="Show tracebacks.")]  # cli.py reads it
DryMeasurement = Annotated[
    bool, Option("--dry-run", help="Check the request, say what would be measured, do nothing.")
]
Classes = Annotated[
    File,
    Option(
        "--classes",
        help="Class list: one name a line, or YOLO's and such.",
        show_default=False,
    ),
]
Labelled = Annotated[
    File,
    Option(
        "--data",
        help="Labelled pictures, for evaluation only: DIR/CLASS/*.jpg, or such folders in one of "
        "each domain.",
    ),
]
Baseline = Annotated[
    Text, Option(help="Small CLIP to compare with: an open_clip NAME[:TAG] or a local folder.")
]
Images = Annotated[File, Option(help="A few real pictures to learn from: DIR/[CLASS/]*.jpg.")]
Preset = Annotated[
    Text, Option(help="Settings to start from: mini, mini-high, clip-b32 or clip-l14.")
]
Teacher = Annotated[Text, Option(help="mini, an open_clip name or a local folder (default: mini).")]
Pretrained = Annotated[Text, Option(help="open_clip's tag of the teacher's weights.")]
Student = Annotated[Text, Option(help="mini or a timm name (default: mini).")]
StudentInit = Annotated[Text, Option(help="pretrained or random (default: pretrained).")]
Prompts = Annotated[Text, Option(help="base, mix, random or contrastive (default: contrastive).")]
NumStyles = Annotated[Number, Option(help="Styles of the prompts (default: 16).")]
ImageSize = Annotated[Number, Option(help="Side of the student's input in pixels.")]
Steps = Annotated[Number, Option(help="Distillation steps (default: by the number of classes).")]
BatchSize = Annotated[Number, Option(help="Views a step (default: 64).")]
Seed = Annotated[Number, Option(help="Every random number follows from it (default: 0).")]
Synthesis = Annotated[
    Text, Option(help=f"{', '.join(_NAMES[:-1])} or {_NAMES[-1]} (default: {_NAMES[0]}).")
]
RunOutput = Annotated[
    File, Option("--output", "-o", help="Run directory (default: runs/LIST-HASH).")
]
Workers = Annotated[Number, Option(help="CPU threads (default: all cores).", min=1, max=256)]
Device = Annotated[Text, Option(help="Torch device (default: cpu).")]
ProofDevice = Annotated[
    Text,
    Option(help="Torch device of teacher, student and fine-tune; graphs are run on the CPU."),
]
GraphDevice = Annotated[
    str, Option("--device", help="cpu, or cuda and cuda:1 with onnxruntime-gpu.")
]
RedoRun = Annotated[
    bool, Option("--exist-ok", help="Redo what differs in another run's directory.")
]
ConfigFile = Annotated[File, Option(help="TOML file with any of the settings.")]
BundleFolder = Annotated[
    Path, Argument(metavar="BUNDLE", help="Folder of a bundle, or of a run with one bundle.")
]
HeldPrecision = Annotated[
    Text,
    Option(
        help="Model of the bundle: fp32, fp16 or int8 (default: the recommended one). Where only "
        "the device's TensorRT makes FP16, the FP32 graph runs here.",
        show_default=False,
    ),
]
Threads = Annotated[int, Option(help="CPU threads (0: all cores).", min=0, max=256)]
DryRun = Annotated[
    bool, Option("--dry-run", help="Check the request, estimate time and memory, do nothing.")
]
Data = Annotated[
    File,
    Option(
        help="Labelled pictures to measure on: DIR/CLASS/*.jpg, or such folders in one of each "
        "domain."
    ),
]
LARGEST_LOSS = (
    "Largest loss on the worst domain that passes the gate, a share: 0.01 is one point, 1 lets all "
    "pass (default: "
)
MaxDrop = Annotated[float | None, Option(help=f"{LARGEST_LOSS}0.01).", min=0, max=1)]
HeldMaxDrop = Annotated[
    float | None,
    Option("--max-drop", help=f"{LARGEST_LOSS}that of the bundle).", min=0, max=1),
]
ExistOk = Annotated[bool, Option("--exist-ok", help="Replace another bundle or run there.")]
Sign = Annotated[
    File,
    Option(
        "--sign",
        help="Sign the bundle: private key of an elliptic curve (P-256, P-384, P-521), PEM without "
        "passphrase; extra `sign`.",
        show_default=False,
    ),
]
Set = Annotated[
    Texts, Option("--set", help="Any setting, NAME=VALUE, as --dry-run lists them; repeatable.")
]


def given_settings(context: Context, section: str = "") -> Settings:
    """Nest what a command was given: `--set`, and above it the flags that stand for settings.

    Args:
        context: of the command; its other flags, such as `--quiet`, are left out.
        section: where flags lie that are called like their setting: "export.", or the root.
    """
    config = ExportConfig if section else PipelineConfig
    known = {*FLAGS, "preset", *(field.name for field in dataclasses.fields(config))}
    flags = {name: value for name, value in context.params.items() if name in known}
    return settings_of(context.params["set_"] or (), flags, section)


def print_json(document: Mapping[str, object]) -> None:
    """Print the one line that `--json` promises on standard output."""
    sys.stdout.write(printable(json.dumps(document, ensure_ascii=False)) + "\n")
