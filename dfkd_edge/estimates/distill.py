"""What `distill --dry-run` tells: the request, what it starts from, and what a run of it takes."""

from dataclasses import asdict

from dfkd_edge.class_lint.look_alikes import look_alikes_text
from dfkd_edge.config.file import to_toml
from dfkd_edge.conversion.calibration_need import find_shortage
from dfkd_edge.drawings.drawn_class import DrawnClass, drawings_text, drawn_classes
from dfkd_edge.drawings.memory import DrawingMemory
from dfkd_edge.estimates.estimate import DryRun
from dfkd_edge.estimates.small_run import SmallRun
from dfkd_edge.interfaces import Reporter
from dfkd_edge.networks.licences import licences_of
from dfkd_edge.networks.teacher import load_teacher
from dfkd_edge.preflight import DistillPlan, needed_weights
from dfkd_edge.synthesis.amortized import uses_drawings, uses_embedded_prior
from dfkd_edge.target_profiles.lookup import load_target


def dry_distill(plan: DistillPlan, is_finished: bool, reporter: Reporter) -> DryRun:
    """Tell what `distill` would do: its settings, what it starts from, and what it takes.

    Args:
        plan: what is asked.
        is_finished: whether it lies in the run directory already.
        reporter: shows the bars.

    Raises:
        ConfigError: the teacher or the student does not exist, or the decoder is incomplete.
        EnvironmentLackingError: the teacher's architecture is on the hub and out of reach.
    """
    config, classes, drawn, alike = plan.config, plan.class_names, list[DrawnClass](), ""
    if uses_drawings(config.teacher.name, config.synthesis):
        teacher = load_teacher(config.teacher, classes)
        drawn = drawn_classes(DrawingMemory(teacher), classes, teacher.head_KD)
        alike = look_alikes_text(teacher)
    with reporter.stage("running a small part of every stage", 1) as progress:
        small, downloads = SmallRun(plan), needed_weights(config)
        estimate, device = small.estimate(), small.device
        progress.advance()
    head = [f"{len(classes)} classes; nothing was run"]
    if is_finished:
        head.append(f"finished in {plan.output}: the same command shows it; made anew:")
    head += [f"drawings    {drawings_text(drawn)}"] if drawn else []
    head += [f"look-alikes {alike}"] if alike else []
    licences = licences_of(config)
    head.append(f"licences    {'; '.join(map(str, licences))}")
    if device != config.device:
        head.append(f"device      {config.device} is not here: a run would stop at once")
    shortage = find_shortage(small.expected, config.export, load_target(config.export.target))
    # other teachers and decoders are played by ours, which says nothing of what they keep
    if shortage and uses_embedded_prior(config.teacher.name, config.synthesis):
        head.append(f"int8        about {shortage.brief}: distill {shortage.more} gives enough")
    for weights in downloads:
        size = f"{weights.size_mb} MB" if weights.size_mb else "size unknown"
        place = f"here: {weights.path}" if weights.path else f"not here: {weights.command}"
        head.append(f"download    {weights.what}, {size}, {place}")
    if config != plan.reusable:
        head.append("settings    for any list: 0 images or steps are as many as its length takes")
    facts = {
        "device": device,
        "licences": [asdict(licence) for licence in licences],
        "drawings": {each.name: each.to_json() for each in drawn},
        "downloads": [
            {**asdict(w), "size_mb": w.size_mb, "cached": str(w.path) if w.path else None}
            for w in downloads
        ],
    }
    return DryRun(
        {
            "is_finished": is_finished,
            "classes": list(classes.names),
            "config": asdict(config),
            "plan": {**estimate.document(), **facts},
        },
        head,
        estimate,
        settings=to_toml(plan.reusable),
    )
