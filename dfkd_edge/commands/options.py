"""Option types that several verbs share; Typer reads the annotations at run time."""

from pathlib import Path
from typing import Annotated, Optional, get_args

import typer

from dfkd_edge.config.settings import SynthesisMethod

Text = Optional[str]  # noqa: UP045  Typer needs the object, not a string
Number = Optional[int]  # noqa: UP045
Share = Optional[float]  # noqa: UP045
Switch = Optional[bool]  # noqa: UP045
File = Optional[Path]  # noqa: UP045
Files = Optional[list[Path]]  # noqa: UP045
Texts = Optional[list[str]]  # noqa: UP045

_NAMES: tuple[str, ...] = get_args(SynthesisMethod)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show tracebacks.")]
DryMeasurement = Annotated[
    bool,
    typer.Option("--dry-run", help="Check the request, say what would be measured, do nothing."),
]
Classes = Annotated[
    File, typer.Option("--classes", help="Class list: one name a line.", show_default=False)
]
Synthesis = Annotated[
    Text,
    typer.Option(help=f"{', '.join(_NAMES[:-1])} or {_NAMES[-1]} (default: {_NAMES[0]})."),
]
RunOutput = Annotated[
    File, typer.Option("--output", "-o", help="Run directory (default: runs/LIST-HASH).")
]
Workers = Annotated[Number, typer.Option(help="CPU threads (default: all cores).", min=1, max=256)]
Device = Annotated[Text, typer.Option(help="Torch device (default: cpu).")]
RedoRun = Annotated[
    bool, typer.Option("--exist-ok", help="Redo what differs in another run's directory.")
]
ConfigFile = Annotated[File, typer.Option(help="TOML file with any of the settings.")]
RunSet = Annotated[
    Texts,
    typer.Option("--set", help="Any setting, such as synthesis.num_images=8000; repeatable."),
]
BundleFolder = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle, or of a run with one bundle.")
]
HeldPrecision = Annotated[Text, typer.Option(help="fp32, fp16 or int8.")]
Threads = Annotated[int, typer.Option(help="CPU threads (0: all cores).", min=0, max=256)]

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the request, estimate time and memory, do nothing.")
]
Data = Annotated[
    File, typer.Option(help="Labelled pictures to measure on: DIR/[DOMAIN/]CLASS/*.jpg.")
]
MaxDrop = Annotated[
    Share,
    typer.Option(
        help="Largest loss on the worst domain, a share: 0.01 is one point, 1 lets all pass "
        "(default: 0.01, for check that of the bundle).",
        min=0,
        max=1,
    ),
]
ExistOk = Annotated[bool, typer.Option("--exist-ok", help="Replace another bundle or run there.")]
Set = Annotated[
    Texts, typer.Option("--set", help="Any setting, such as export.percentile=99.9; repeatable.")
]
