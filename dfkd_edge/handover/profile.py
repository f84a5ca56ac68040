"""What a runtime takes and which of its versions runs where; data only, one TOML file each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from dfkd_edge.errors import ConfigError
from dfkd_edge.files import read_toml
from dfkd_edge.runtime.counting import counted
from dfkd_edge.target_profiles.profile import Backend, Feed, Precision, TargetProfile

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

Release = Annotated[str, Field(pattern=r"^\d+(\.\d+)+$")]
Batches = Literal["any", "from one", "one"]
Source = Annotated[str, Field(pattern=r"^(sourced|derived|unverified): .")]
Mistake = Literal[
    "channels",
    "scale",
    "offsets",
    "aspect",
    "filter",
    "layout",
    "size",
    "dtype",
    "video",
    "flip",
    "precision",
]
"""Of a pipeline in front of the network, as `check.pyz --frame` finds them."""
ANY_TENSORRT = 99  # Newer than any
RENAME = "rename the class and distil again, or leave this runtime out"
FEEDS: Mapping[Feed, str] = {
    "bundle": "pixels of 0 to 255, NHWC, as the bundle's own graph takes them",
    "pixels": "pixels of 0 to 255, NHWC; one output of probabilities",
    "planes": "float32 of 0 to 255, NCHW; one output of probabilities",
    "imagenet": "float32 NCHW, normalised as for ImageNet; one output of probabilities",
}


class RuntimeProfile(BaseModel, extra="forbid", frozen=True):
    """One runtime, as its TOML states it; `exporters/runtimes/README.md` explains the fields."""

    name: str  # As it is asked for, and the name of its folder in a bundle
    title: str  # What it is, for people
    feed: Feed  # What it hands to the network
    backends: tuple[Backend, ...] = ("tensorrt",)  # Targets that it exists for
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")  # Graphs that it runs as they are
    model: str = ""
    """Where its graph lies in its folder, empty where it reads the bundle's own in its place;
    `{content}` stands for a hash of it, where the runtime names engines after the graph."""
    batches: Batches = "any"
    """Batches that it fills: `from one` hands over what is there, `one` a picture at a time."""
    versions: Mapping[str, tuple[Release, ...]] = {}
    """Its version -> the JetPacks that it runs on."""
    boards: str = ""  # Its version on a board without a JetPack
    version_is: Literal["", "tensorrt"] = ""
    """Where it has no version of its own: it comes with the JetPack, as trtexec does."""
    max_tensorrt: int = ANY_TENSORRT  # Newest major version of TensorRT that it was built for
    refused_names: Mapping[str, str] = {}
    """Pattern of the bytes of a class name that it would read wrongly -> what it would do."""
    mends: Mapping[Mistake, str] = {}
    """Mistake of its pipeline -> what to set; `{side}`, `{dtype}` and `{dims}` stand for the
    input's, as the configuration has them."""
    dump: str = ""  # How what enters the network gets into a file, for `check.pyz --frame`
    sources: Mapping[str, Source] = {}  # Of each field that is a fact, where it comes from

    def model_of(self, content: str) -> str:
        """Where a graph of some content lies in the folder; empty where the runtime gets none."""
        return self.model.replace("{content}", content)

    def version_on(self, target: TargetProfile) -> str:
        """Find the version for a target; empty where there never was one."""
        if target.backend not in self.backends:
            return ""
        if target.tensorrt and int(target.tensorrt.split(".")[0]) > self.max_tensorrt:
            return ""
        if self.version_is:
            return target.tensorrt or ""
        if target.jetpack is None:
            return self.boards
        found = (
            version for version, jetpacks in self.versions.items() if target.jetpack in jetpacks
        )
        return next(found, "")

    def require(self, target: TargetProfile) -> str:
        """Return the version for a target.

        Raises:
            ConfigError: the runtime never was there; those that were are named.
        """
        version = self.version_on(target)
        if not version:
            raise ConfigError(
                f"{self.name} never was on {target.name}", where="runtime", hint=self._where_it_is()
            )
        return version

    def require_batch(self, batch: Sequence[int]) -> None:
        """Refuse a graph whose batch the runtime cannot fill.

        Raises:
            ConfigError: names what it takes, and how to export it.
        """
        fits = {"any": True, "from one": min(batch) == 1, "one": set(batch) == {1}}
        if not fits[self.batches]:
            several = " or `--batch 1,4,8`" if self.batches == "from one" else ""
            raise ConfigError(
                f"{self.name} cannot fill a batch of {', '.join(map(str, batch))}",
                where="runtime",
                hint=f"export with `--batch 1`{several}, or leave this runtime out",
            )

    def require_names(self, names: Sequence[str], way_out: str = RENAME) -> None:
        """Refuse a class list that the runtime would read otherwise.

        Args:
            names: of the classes.
            way_out: what the user can do about it.

        Raises:
            ConfigError: names the first such class, what would happen, and the way out.
        """
        for pattern, what in self.refused_names.items():
            # runtimes read bytes, and so do the patterns: one byte is one character in latin-1
            wrong = [
                n for n in names if re.search(pattern, n.encode().decode("latin-1"), re.DOTALL)
            ]
            if wrong:
                more = f" and {counted(len(wrong) - 1, 'more')}" if len(wrong) > 1 else ""
                raise ConfigError(
                    f"{self.name} cannot have the class '{wrong[0]}'{more}: {what}",
                    where="runtime",
                    hint=way_out,
                )

    def reach(self) -> str:
        """Say in a few words where the runtime is."""
        jetpacks = [jetpack for group in self.versions.values() for jetpack in group]
        on = [f"JetPack {_span(jetpacks)}"] if jetpacks else []
        on += ["wherever TensorRT is"] if self.version_is else []
        on += ["CPU boards"] if self.boards else []
        return ", ".join(on)

    def shown(self) -> dict[str, str]:
        """Every field as a person reads it."""
        versions = [f"{version}: JetPack {_span(j)}" for version, j in self.versions.items()]
        names = [f"{pattern}  ({what})" for pattern, what in self.refused_names.items()]
        fields = {
            "title": self.title,
            "feed": f"{self.feed}: {FEEDS[self.feed]}",
            "backends": ", ".join(self.backends),
            "precisions": ", ".join(self.precisions),
            "batches": self.batches if self.batches != "any" else "",
            "versions": "\n".join(versions),
            "boards": self.boards,
            "version_is": self.version_is,
            "max_tensorrt": f"{self.max_tensorrt}.x" if self.max_tensorrt < ANY_TENSORRT else "",
            "refused_names": "\n".join(names),
            "dump": self.dump,
            "mends": "\n".join(f"{mistake}: {mend}" for mistake, mend in self.mends.items()),
        }
        return {key: value for key, value in fields.items() if value}

    def _where_it_is(self) -> str:
        if self.version_is:
            return "it is wherever TensorRT is"
        on = [f"{version} on JetPack {_span(j)}" for version, j in self.versions.items()]
        on += [f"{self.boards} on boards with ONNX Runtime"] if self.boards else []
        most = f", with TensorRT up to {self.max_tensorrt}" * (self.max_tensorrt < ANY_TENSORRT)
        return f"there is {', '.join(on)}{most}"


def read_runtime(path: Traversable) -> RuntimeProfile:
    """Read the file of a runtime.

    Raises:
        ConfigError: it is not there, or a field is unknown or wrong.
    """
    try:
        return RuntimeProfile.model_validate(read_toml(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(first["msg"], where=f"{path}: {key}") from error


def _span(jetpacks: Sequence[str]) -> str:
    return jetpacks[0] if len(jetpacks) == 1 else f"{jetpacks[0]} to {jetpacks[-1]}"
