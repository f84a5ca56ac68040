"""What `export` takes: its steps are run on few images, and multiplied by counts.

Writing the FP32 graph that ships cannot be cut into steps, and takes longer than a dry run should:
a usual time stands for it, and a graph that was traced quickly is calibrated, quantized and run.
`tests/benchmarks/export_seeds.py` prints an estimate beside what the export took.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

import dfkd_edge.deployment.finetune as qat
from dfkd_edge.config.file import to_toml
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.conversion.calibration_source import CalibrationSet
from dfkd_edge.conversion.conversion import Conversion
from dfkd_edge.conversion.precision import chosen_precision
from dfkd_edge.conversion.teacher_graph import write_quickly
from dfkd_edge.deployment.float_layers import MAX_FLOAT_SHARE, MAX_RANKED
from dfkd_edge.deployment.material import teacher_of
from dfkd_edge.deployment.repair import CHOOSING_SIZE, NUM_RANKING_IMAGES
from dfkd_edge.estimates.card import Card, CardNeeds
from dfkd_edge.estimates.estimate import DryRun, Estimate, StageEstimate
from dfkd_edge.estimates.passes import Stopwatch, gradient_bytes
from dfkd_edge.files import scratch_folder
from dfkd_edge.handover.lookup import load_runtime
from dfkd_edge.interfaces import Reporter, Runner
from dfkd_edge.machine.process import usable_device
from dfkd_edge.networks.runners import TorchRunner
from dfkd_edge.networks.students import load_student
from dfkd_edge.networks.teacher import open_clip_name
from dfkd_edge.networks.transfer import free_bytes
from dfkd_edge.networks.weights import shapes_of_teacher
from dfkd_edge.plugins import load_exporter
from dfkd_edge.preflight import ExportPlan
from dfkd_edge.results.ladder import HELDOUT_DOMAIN
from dfkd_edge.runs.finished import open_finished_run
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.device import peak_memory_mib
from dfkd_edge.runtime.preprocess import resized_images
from dfkd_edge.validation.confidence import IMAGES_PER_DOMAIN
from dfkd_edge.validation.evaluation_images import MORE, labelled_pictures, plan_suite
from dfkd_edge.validation.ladder import BATCH_SIZE
from dfkd_edge.validation.rungs import LATENCY, open_runner

NUM_IMAGES = 16  # Calibrated on, and of a step of the fine-tune (ours)
SMALL_FILES_BYTES = 1 << 20  # Golden images, check.pyz, test card, ladder and lists (ours)
GRAPH_S = 6.0
"""Of writing the FP32 graph on a core of an Intel Xeon: 3 to 7 for students of the table (ours)."""


class SmallExport:
    """Steps of an export on few images, and what the whole one follows from them."""

    def __init__(self, plan: ExportPlan) -> None:
        """Run them.

        Raises:
            RunDirError: the run is not finished.
            ArtifactError: a file of it is missing or damaged.
            EnvironmentLackingError: the teacher's weights are not here.
        """
        self.plan, self.config, self.watch = plan, plan.config.export, Stopwatch()
        self.run = open_finished_run(plan.run)
        self.student = load_student(self.run.student)
        self.side = self.student.image_size_px
        self.is_int8 = chosen_precision(plan.target, self.config) == "int8"
        with scratch_folder() as folder:
            self.shown_s = self._shown_s(folder)
        self.tuned_bytes = self._tune() if self.is_int8 else 0
        self.device = plan.device or plan.config.device
        self.needs = None if self.device == "cpu" else self._card_needs()
        self.base_bytes = int(peak_memory_mib() * 2**20)

    def _card_needs(self) -> CardNeeds:
        """Of the card that teacher and student run on, whether it is here or not."""
        free = free_bytes(torch.device(self.device)) if usable_device(self.device) != "cpu" else 0
        teacher = shapes_of_teacher(open_clip_name(self.plan.config.teacher)[0])
        return CardNeeds(self.plan.config, teacher, self.student, self.run.class_names, Card(free))

    def _shown_s(self, folder: Path) -> list[float]:
        """Seconds of an image in each rung; calibrates and quantizes on the way to INT8."""
        images = self.run.surrogates.images
        image_NHWC = images.rows(np.arange(BATCH_SIZE) % len(images))
        target = replace(self.plan.target, min_calibration_images=0)  # so few would be refused
        graphs = [write_quickly(self.student, folder)]
        if self.is_int8:
            conversion = Conversion(target, self.config, self.watch, folder)
            few_NHWC = resized_images(image_NHWC[:NUM_IMAGES], self.side)
            calibration = conversion.calibrate(graphs[0], CalibrationSet(few_NHWC, ""))
            self.num_layers = len(load_exporter("int8").quantizable_nodes(graphs[0], target))
            with self.watch.stage("quantizing", 1):
                graphs.append(conversion.quantize(graphs[0], calibration, "int8"))
        teacher = teacher_of(self.run)
        runners: list[tuple[Runner, int]] = [
            (TorchRunner("teacher", teacher), teacher.image_size_px),
            (TorchRunner("student", self.student), self.side),
            *((open_runner(graph, self.config.num_threads), self.side) for graph in graphs),
        ]
        shown_s = []
        for runner, side_px in runners:
            with self.watch.stage("ladder", 2) as progress:
                for _ in range(2):
                    runner(resized_images(image_NHWC, side_px))
                    progress.advance()
            shown_s.append(self.watch.laps_s["ladder"][1] / BATCH_SIZE)  # the first batch warms up
        is_fp16 = chosen_precision(self.plan.target, self.config) == "fp16"
        return shown_s + shown_s[-1:] * is_fp16  # a host runs the cast graph as it does FP32

    def _tune(self) -> int:
        """Take gradients of the student, rounded as in the fine-tune; returns bytes of a view."""
        spec = self.plan.target.quantization
        assert spec is not None
        view_NCHW = torch.rand(NUM_IMAGES, 3, self.side, self.side)
        ranges = qat.input_ranges(self.student, view_NCHW, self.config.percentile)
        with qat.rounding(self.student, ranges, spec) as student:
            with self.watch.stage("tuning", 2) as progress:
                for _ in range(2):
                    student(view_NCHW).sum().backward()
                    progress.advance()
            return gradient_bytes(student, (3, self.side, self.side), "cpu")

    def estimate(self) -> tuple[Estimate, int]:
        """Multiply; returns how many images every rung sees, too.

        Raises:
            ConfigError: the labelled pictures are of no class.
        """
        domains = plan_suite(int(self.run.surrogates.is_heldout.sum()))
        num = sum(domain.num_images for domain in domains)
        views = sum(domain.num_images for domain in domains if domain.name != HELDOUT_DOMAIN)
        stored = self.run.surrogates.images  # held-out ones are read batch by batch
        host_bytes = self.base_bytes + views * (stored.nbytes // len(stored))
        if self.plan.data:
            names, data = self.run.class_names.names, Path(self.plan.data)
            num = labelled_pictures(data, names, (self.side,)).num_images
            host_bytes = self.base_bytes  # pictures are read batch by batch
        ladder_s, is_gated = num * sum(self.shown_s), self.config.max_drop < 1
        fitted_s = IMAGES_PER_DOMAIN * (len(domains) - 1) * self.shown_s[-1]
        work, num_weights = (
            f"{num} images through {len(self.shown_s)} models",
            self.student.num_parameters,
        )
        stages = [
            StageEstimate("graph", "FP32 graph", GRAPH_S, host_bytes, disk_bytes=4 * num_weights),
            StageEstimate(
                "ladder",
                work,
                self._opened_s + ladder_s + fitted_s,
                host_bytes,
                self._shown_on_card,
            ),
        ]
        if self.is_int8:
            images = f"{self.config.calibration_size} images"
            int8 = StageEstimate("calibration", images, self._int8_s, host_bytes)
            stages.insert(1, replace(int8, disk_bytes=num_weights))  # a byte each, beside FP32
        stages.append(bundle_estimate(self.config.runtimes, num_weights, self.is_int8))
        if is_gated and not self.plan.data:
            why = "a loss over the limit may be chance"
            again_s, work = MORE * ladder_s, f"at most {MORE * num} more views"
            again = StageEstimate("again", work, again_s, host_bytes, self._shown_on_card)
            stages.append(replace(again, only_where=why))
        if is_gated and self.is_int8 and self.config.repair:
            work, why = "at most all layers ranked, and a fine-tune", "INT8 misses the gate"
            most = host_bytes + qat.BATCH_SIZE * self.tuned_bytes
            on_card = self.needs.finetune(stored.nbytes) if self.needs else 0
            most = host_bytes if on_card else most
            repair = StageEstimate("repair", work, self._repair_s(num), most, on_card)
            stages.append(replace(repair, only_where=why))
        return Estimate(tuple(stages), "steps on few images, run on this machine"), num

    @property
    def _opened_s(self) -> float:
        """Seconds of timing every rung, and the teacher once more as a graph."""
        return (len(self.shown_s) + 1) * (LATENCY.duration_s + LATENCY.warmup_ms / 1e3)

    @property
    def _shown_on_card(self) -> int:
        """Bytes of a card while images are shown to teacher and student; 0 on a CPU."""
        return self.needs.evaluation(BATCH_SIZE) if self.needs else 0

    @property
    def _int8_s(self) -> float:
        """Seconds of calibrating, and of an INT8 graph."""
        image_s = sum(self.watch.laps_s[f"calibrating on {NUM_IMAGES} images"]) / NUM_IMAGES
        return self.config.calibration_size * image_s + sum(self.watch.laps_s["quantizing"])

    def _repair_s(self, num: int) -> float:
        """Seconds of the longest way: all layers ranked, all choices judged, then the fine-tune."""
        made_s, last_s = sum(self.watch.laps_s["quantizing"]), self.shown_s[-1]
        # doubling, then halving, the number of float layers
        num_judged = 2 * max(1, int(self.num_layers * MAX_FLOAT_SHARE)).bit_length()
        ranked_s = min(self.num_layers, MAX_RANKED) * (NUM_RANKING_IMAGES * last_s + made_s)
        chosen_s = num * CHOOSING_SIZE * (sum(self.shown_s) + num_judged * last_s)
        view_s = self.shown_s[0] + self.watch.laps_s["tuning"][1] / NUM_IMAGES
        tuned_s = qat.NUM_STEPS * qat.BATCH_SIZE * view_s + self._int8_s
        return ranked_s + chosen_s + num_judged * made_s + tuned_s + num * last_s


def bundle_estimate(runtimes: Sequence[str], num_weights: int, is_int8: bool) -> StageEstimate:
    """Count what lies in a bundle beside its graphs: the student, a graph a runtime, small files.

    Args:
        runtimes: by name.
        num_weights: of the student.
        is_int8: whether the bundle has an INT8 graph, which runtimes that can take.
    """
    num_bytes = 4 * num_weights + SMALL_FILES_BYTES
    for name in dict.fromkeys(runtimes):
        profile = load_runtime(name).profile
        if profile.model:  # the others read the bundle's own graph
            num_bytes += (1 if is_int8 and "int8" in profile.precisions else 4) * num_weights
    work = f"student, check.pyz, {counted(len(set(runtimes)), 'runtime')}"
    return StageEstimate("bundle", work, None, disk_bytes=num_bytes)


def dry_export(plan: ExportPlan, reporter: Reporter) -> DryRun:
    """Tell what `export` would do: its settings, and what it takes.

    Raises:
        DfkdEdgeError: the run, its teacher or the labelled pictures cannot be used.
    """
    with reporter.stage("running steps on few images", 1) as progress:
        estimate, num_images = SmallExport(plan).estimate()
        progress.advance()
    target, config = plan.target.name, plan.config.export
    facts = {"run": str(plan.run), "target": target, "bundle": str(plan.folder)}
    settings = to_toml(PipelineConfig(export=config))
    more = {
        "num_images": num_images,
        "more_seconds": estimate.seconds("again"),
        "repair_seconds": estimate.seconds("repair"),
        "repair_memory_gib": estimate.memory_gib(at_most=True),
    }
    return DryRun(
        {**facts, "config": asdict(config)},
        [f"{plan.run} -> {plan.folder} for {target}; nothing was run"],
        estimate,
        more,
        settings[settings.index("[export]") :],
    )
