"""Makes the folders of runtimes: graph, configuration, labels, README and golden files."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.artifacts import Bytes, ModelFile
from dfkd_edge.bundles.bundle import BundleContents
from dfkd_edge.bundles.recipe import engine_content
from dfkd_edge.conversion.lint import lint_model, refuse_errors
from dfkd_edge.files import atomic_write
from dfkd_edge.handover.lookup import Runtime
from dfkd_edge.handover.parsers import ReadBack, read_back
from dfkd_edge.handover.proof import Answers, golden_files, own_answers, require_equal
from dfkd_edge.handover.request import Handover
from dfkd_edge.interfaces import Reporter
from dfkd_edge.plugins import load_exporter
from dfkd_edge.runtime.bundle_files import MANIFEST, RUNTIMES
from dfkd_edge.runtime.caveats import GATE_FAILED
from dfkd_edge.runtime.confidence import Confidence, read_confidence
from dfkd_edge.runtime.graph_guard import read_outline
from dfkd_edge.runtime.preprocess import min_usual_max
from dfkd_edge.target_profiles.profile import Feed, Precision, TargetProfile


@dataclass(frozen=True, kw_only=True, slots=True)
class ProvenModel:
    """What a bundle holds, as far as runtimes need it."""

    target: TargetProfile
    precision: Precision  # The recommended one
    models: Mapping[Precision, Path]
    classes: tuple[str, ...]
    side_px: int
    batch: tuple[int, int, int]
    golden_images: Bytes  # [N, S, S, C]
    confidence: Confidence
    has_failed: bool  # What the gate said


def proven_model(contents: BundleContents) -> ProvenModel:
    """Take what runtimes need out of what a bundle will hold."""
    return ProvenModel(
        target=contents.target,
        precision=contents.precision,
        models={precision: model.path for precision, model in contents.models.items()},
        classes=contents.class_names,
        side_px=contents.golden.images.shape[1],
        batch=min_usual_max(contents.batch),
        golden_images=contents.golden.images,
        confidence=read_confidence(contents.confidence, Path(MANIFEST)),
        has_failed=contents.status != "passed",
    )


class RuntimeFolders:
    """Makes them one after another; what two share is made and proven once."""

    def __init__(self, model: ProvenModel, work: Path) -> None:
        """Remember what they are made from; `work` is an empty folder."""
        self.model, self.work = model, work
        self._answers: dict[Precision, Answers] = {}
        self._variants: dict[tuple[Precision, Feed], Path] = {}
        self._unchecked: dict[str, ReadBack] = {}

    def make(self, runtimes: Sequence[Runtime], reporter: Reporter) -> dict[str, Path]:
        """Make the folders of some runtimes.

        Returns:
            Files by their name in a bundle.

        Raises:
            ConversionError: a variant answers otherwise than the bundle's own graph, or a parser
                refuses a configuration.
        """
        made: dict[str, Path] = {}
        if runtimes:
            with reporter.stage("handing over to runtimes", len(runtimes)) as progress:
                for runtime in runtimes:
                    made |= self._folder(runtime)
                    progress.advance(1, runtime.profile.name)
            versions = (f"{r.profile.name} {self._version(r)}" for r in runtimes)
            reporter.note(f"  for {', '.join(versions)}; {RUNTIMES}/ has a README.md for each")
            if self.model.has_failed:
                reporter.note(f"  {GATE_FAILED}")
            for name, result in self._unchecked.items():
                reporter.note(f"  {name}: {result}")
        return made

    def _folder(self, runtime: Runtime) -> dict[str, Path]:
        job, profile = self._job(runtime), runtime.profile
        images, own = self.model.golden_images, self._own(job.graph)
        graph = self._graph(job, own)
        digest = engine_content(graph, job.precision, job.batch, job.target)
        job, place = dataclasses.replace(job, content=digest), profile.model_of(digest)
        folder = self.work / RUNTIMES / profile.name
        folder.mkdir(parents=True)
        for name, text in self._texts(job, runtime).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            atomic_write(folder / name, text)
        if place:
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(graph, folder / place)
        (folder / "golden").mkdir()
        for name, content in golden_files(job, images, own).items():
            atomic_write(folder / "golden" / name, content)
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(self.work).as_posix(): path for path in found}

    def _texts(self, job: Handover, runtime: Runtime) -> dict[str, str]:
        """Let the runtime's texts be written, and read back where a parser is here."""
        texts = dict(runtime.write(job))
        result = read_back(texts, runtime.parsers, runtime.agree)
        if result.unchecked:
            self._unchecked[runtime.profile.name] = result
            texts["README.md"] += f"- {result}\n"
        return texts

    def _job(self, runtime: Runtime) -> Handover:
        model, profile = self.model, runtime.profile
        precision = model.precision
        if precision not in profile.precisions:
            precision = "fp32" if "fp32" in profile.precisions else "fp16"
        graph: Precision = precision if precision in model.models else "fp32"
        return Handover(
            profile=profile,
            version=self._version(runtime),
            target=model.target,
            classes=model.classes,
            side_px=model.side_px,
            batch=model.batch,
            precision=precision,
            proven=model.precision,
            graph=graph,
            content="",  # of a graph that is not made yet
            embed_dim=read_outline(model.models[graph]).outputs["embedding"][-1],
            confidence=model.confidence,
            has_failed=model.has_failed,
        )

    def _version(self, runtime: Runtime) -> str:
        return runtime.profile.require(self.model.target)

    def _own(self, precision: Precision) -> Answers:
        if precision not in self._answers:
            self._answers[precision] = own_answers(
                self.model.models[precision],
                precision,
                self.model.golden_images,
                self.model.target.graph_input,
                self.model.confidence,
            )
        return self._answers[precision]

    def _graph(self, job: Handover, own: Answers) -> Path:
        """Return the graph that a runtime reads: the bundle's own, or a variant that is proven."""
        feed, source = job.profile.feed, self.model.models[job.graph]
        if feed == "bundle":
            return source
        if (job.graph, feed) not in self._variants:
            path = self.work / f"{feed}.{job.graph}.onnx"
            file = ModelFile(source, "onnx", job.graph, {})
            temperature = job.confidence.temperature
            load_exporter("variant").export(file, feed, temperature, path)
            refuse_errors(lint_model(path, job.target), path)
            require_equal(path, job, self.model.golden_images, own)
            self._ask_oracle(path, job)
            self._variants[job.graph, feed] = path
        return self._variants[job.graph, feed]

    @staticmethod
    def _ask_oracle(path: Path, job: Handover) -> None:
        oracle = load_exporter("oracle")
        if job.target.backend == "tensorrt" and oracle.available():
            oracle.build(path, job.batch)
