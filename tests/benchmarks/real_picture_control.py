"""Control: the same student, teacher and steps on real pictures instead of surrogates.

python tests/benchmarks/real_picture_control.py --photos photos.npy --classes LIST --data DIR

`photos.npy` is what examples/embedded_teacher/pictures.py writes; the teacher alone labels it.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from dfkd_edge.class_names import read_class_names
from dfkd_edge.config.settings import DistillationConfig, TeacherConfig
from dfkd_edge.console import ConsoleReporter, make_console
from dfkd_edge.distillation import distill
from dfkd_edge.networks.teacher import load_teacher
from dfkd_edge.results.codec import to_json
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.run_dir import open_run
from dfkd_edge.validation.evaluate import evaluate

sys.path.append(str(Path(__file__).parents[2] / "examples" / "study"))
from picture_sets import labelled_by_teacher, real_pictures


def main() -> None:
    """Distil on real pictures and print the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--classes", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--num-images", type=int, default=2400)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--student-init", default="random")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    reporter = ConsoleReporter(make_console(quiet=False))
    teacher = load_teacher(TeacherConfig(), read_class_names(args.classes))
    with (
        tempfile.TemporaryDirectory() as folder,
        open_run(Path(folder) / "run", "control", resume=True, exist_ok=False) as run_dir,
    ):
        context = StageContext(run_dir, reporter, args.seed, "cpu")
        drawn = real_pictures(args.photos, args.num_images, args.seed)
        pictures = labelled_by_teacher(drawn, teacher, f"real {args.seed}")
        config = DistillationConfig(student_init=args.student_init, num_steps=args.steps)
        student = distill(teacher, pictures, config, context)
        ladder = evaluate(student, teacher, pictures, args.data, context)
    print(json.dumps(to_json(ladder.shipped), indent=2))
    print(f"distance within a class {pictures.summary.mean_distance_within_class:.3f}")


if __name__ == "__main__":
    main()
