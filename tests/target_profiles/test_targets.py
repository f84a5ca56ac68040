"""The shipped target data, the names that lead to it, and boards of the user's own."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from dfkd_edge.errors import ConfigError
from dfkd_edge.plugins import load_exporter
from dfkd_edge.target_profiles.files import TargetFile, read_quantization_spec, read_target_file
from dfkd_edge.target_profiles.lookup import list_modules, list_targets, load_target
from tests.fixtures.command import invoke

DATA = Path(__file__).parents[2] / "targets"
MODULES = {
    *("nano", "tx2", "tx2-nx", "xavier-nx-8gb", "xavier-nx-16gb"),
    *("agx-xavier-32gb", "agx-xavier-64gb", "agx-orin-32gb", "agx-orin-64gb", "t4000", "t5000"),
    *("orin-nano-4gb", "orin-nano-8gb", "orin-nano-4gb-super", "orin-nano-8gb-super"),
    *("orin-nx-8gb", "orin-nx-16gb", "orin-nx-8gb-super", "orin-nx-16gb-super"),
}
BOARDS = {"raspberry-pi-5", "intel-n100", "x86-cpu"}


def stored(kind: str) -> list[Path]:
    found = sorted((DATA / kind).glob("*.toml"))
    assert found
    return found


def write(folder: Path, text: str) -> str:
    (folder / "my_board.toml").write_text(text, encoding="utf-8")
    return str(folder / "my_board.toml")


def refusal(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_target(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_field_of_the_data_states_its_source() -> None:
    for path in (path for kind in ("modules", "jetpacks", "boards") for path in stored(kind)):
        for key, fact in read_target_file(path).facts.items():
            assert fact.source, (path, key)
            assert not fact.source.startswith("stated in"), (path, key)


def test_every_field_is_explained_and_no_other() -> None:
    table = (DATA / "README.md").read_text(encoding="utf-8").partition("## Fields")[2]
    first_column = "\n".join(re.findall(r"^\| (.+?) \|", table, re.M))
    explained = set(re.findall(r"`([a-z0-9_]+)`", first_column))
    assert explained == set(TargetFile.model_fields) - {"sources"}


def test_the_promised_modules_and_boards_are_there() -> None:
    names = list_modules()
    assert {name for name, jetpacks in names.items() if jetpacks} == MODULES
    assert {name for name, jetpacks in names.items() if not jetpacks} == BOARDS


def test_every_target_joins_into_a_sound_profile() -> None:
    used = set()
    for name in list_targets():
        profile = load_target(name)
        assert profile.name == name
        assert ("int8" in profile.precisions) == (profile.quantization is not None)
        assert bool(profile.no_int8_reason) == (profile.quantization is None)
        assert profile.min_calibration_images >= 500
        assert sum(mode.is_default for mode in profile.power_modes) <= 1
        if profile.backend == "tensorrt":
            assert profile.tensorrt is not None
            strong = int(profile.tensorrt.split(".")[0]) >= 11
            assert profile.typing == ("strong" if strong else "weak")
            version = tuple(map(int, profile.tensorrt.split(".")[:2]))
            assert profile.graph_input == ("uint8" if version >= (8, 5) else "float32")
        used.add(name.partition("@jp")[2])
    assert used - {""} == {path.stem for path in stored("jetpacks")}


@pytest.mark.parametrize(
    ("name", "full_name", "tensorrt", "best"),
    [
        ("jetson", "orin-nano-8gb-super@jp6.2", "10.3", "int8"),
        ("nano", "nano@jp4.6.6", "8.2", "fp16"),
        ("tx2@jp4.6", "tx2@jp4.6", "8.0", "fp16"),
        ("xavier-nx-8gb", "xavier-nx-8gb@jp5.1.6", "8.5", "int8"),
        ("orin-nano-8gb", "orin-nano-8gb@jp6.2.2", "10.3", "int8"),
        ("t5000", "t5000@jp7.2.2", "10.16", "int8"),
        ("agx-orin-64gb@jp7.2.2", "agx-orin-64gb@jp7.2.2", "10.16", "int8"),
        ("agx-orin-64gb@jp7.2.2-trt11", "agx-orin-64gb@jp7.2.2-trt11", "11.4", "int8"),
    ],
)
def test_a_name_leads_to_one_module_on_one_jetpack(
    name: str, full_name: str, tensorrt: str, best: str
) -> None:
    profile = load_target(name)
    assert profile.name == full_name
    assert (profile.tensorrt or "").startswith(tensorrt)
    assert profile.best_precision == best
    assert profile.jetpack == full_name.partition("@jp")[2].removesuffix("-trt11")


def test_quantization_follows_the_runtime() -> None:
    figures = {}
    for name in ("jetson", "intel-n100", "x86-cpu", "raspberry-pi-5"):
        spec = load_target(name).quantization
        assert spec
        figures[name] = (spec.activation_dtype, spec.activation_symmetric, spec.reduce_range)
    assert figures == {
        "jetson": ("int8", True, False),
        "intel-n100": ("uint8", False, False),
        "x86-cpu": ("uint8", False, True),
        "raspberry-pi-5": ("uint8", False, False),
    }


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", r"Field required \(.*: activation_dtype\)"),
        ('activation_dtype = "int4"', r"'int4' is .* \(.*: activation_dtype\)"),
        ('activation_dtype = "int8"\nreduced_range = true', r"did you mean reduce_range\?"),
        ('[sources]\nreduce_range = "a guess"', r"'a guess': .* \(.*: reduce_range\)"),
    ],
)
def test_a_wrong_quantization_spec_names_its_field(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "mine.toml").write_text(f"activation_symmetric = true\n{text}", encoding="utf-8")
    with pytest.raises(ConfigError, match=fault):
        read_quantization_spec(tmp_path / "mine.toml", "mine")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *(("orin-nano-8bg", "did you mean orin-nano-8gb"), ("jetsn", "did you mean jetson")),
        ("orin-nano-8gb@6.2", "did you mean orin-nano-8gb@jp6.2"),
        ("orin", "name one of orin-nx-8gb, orin-nx-16gb, agx-orin-32gb, agx-orin-64gb, orin-nano"),
        ("Jetson Orin Nano@jp6.2", "name one of orin-nano-4gb, orin-nano-8gb, orin-nano-4gb-super"),
        *(("thor", "did you mean t5000?"), ("x86-cpu@jp6.2", "did you mean x86-cpu")),
        ("nano@jp6.2", "JetPack 6.2 never shipped for nano (nano@jp6.2): those that did: nano@"),
        ("orin-nano-8gb-super@jp6.1", "those that did: orin-nano-8gb-super@jp6.2,"),
        ("agx-orin-64gb@jp7.0", "those that did: agx-orin-64gb@jp5.1.1,"),
        ("t5000@jp", "JetPack (none) never shipped for t5000"),
        ("./missing.toml", "no such TOML file"),
    ],
)
def test_a_wrong_name_is_refused_with_the_way_out(name: str, fault: str) -> None:
    assert fault in refusal(name)


def test_a_board_of_ones_own_builds_on_a_target(tmp_path: Path) -> None:
    text = 'base = "nano@jp4.6.1"\nram_gib = 2\n[sources]\nram_gib = "sourced: the label"\n'
    board = load_target(write(tmp_path, text))
    base = load_target("nano@jp4.6.1")
    assert board.facts["ram_gib"].source == "the label"
    own = replace(base, name="my_board", module="my_board", ram_gib=2)
    assert board == replace(own, facts=board.facts)
    assert load_target("my_board", [tmp_path]) == board
    assert "my_board" in list_targets([tmp_path])


def test_a_board_builds_on_a_jetpack_alone_or_on_nothing(tmp_path: Path) -> None:
    own = 'family = "orin"\nbackend = "tensorrt"\nsm = 87\nprecisions = ["fp32", "fp16"]\n'
    board = load_target(write(tmp_path, f'base = "jp6.1"\n{own}'))
    assert (board.jetpack, board.tensorrt, board.recommended_opset) == ("6.1", "10.3.0.30", 17)
    alone = 'family = "arm"\nbackend = "onnxruntime"\nprecisions = ["fp32"]\n'
    alone += "recommended_opset = 17\nmax_opset = 21\nmax_ir = 10\n"
    board = load_target(write(tmp_path, alone))
    assert board.quantization is None
    assert board.facts["family"].evidence == "unverified"


def test_the_dla_is_refused_where_it_is_not_and_loses_int8_before_trt_11(tmp_path: Path) -> None:
    board = load_target(write(tmp_path, 'base = "orin-nx-16gb@jp6.2"\nuse_dla = true\n'))
    assert board.best_precision == "fp16"
    assert "DLA" in board.no_int8_reason
    newer = write(tmp_path, 'base = "agx-orin-64gb@jp7.2.2-trt11"\nuse_dla = true\n')
    assert load_target(newer).best_precision == "int8"
    for base, fault in (("jetson", "no DLA"), ("agx-orin-64gb@jp7.2", "no DLA compiler")):
        assert fault in refusal(write(tmp_path, f'base = "{base}"\nuse_dla = true\n'))


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("rma_gib = 2", "unknown field 'rma_gib' ({path}): did you mean ram_gib?"),
        ('ram_gib = "2"', "'2' is not a number ({path}: ram_gib): such as 0.01"),
        *(("ram_gib = -1", "({path}: ram_gib)"), ("sm = true", "({path}: sm)")),
        ('backend = "tflite"', "'tflite' is none of 'tensorrt' or 'onnxruntime'"),
        ('precisions = ["int4"]', "({path}: precisions.0)"),
        ('precisions = ["int8", "fp32"]', "write it as ['fp32', 'int8'], best last"),
        *(("precisions = []", "({path}: precisions)"), ('tensorrt = "ten"', "({path}: tensorrt)")),
        *(("max_opset = 9", "({path}: max_opset)"), ("= 3", "not a TOML file")),
        ("recommended_opset = 25", "must not exceed max_opset"),
        ('quantization = "tensorrt-qdc"', "did you mean tensorrt-qdq?"),
        ('tensorrt = "8.4"', 'must be "float32" before TensorRT 8.5 ({path}: graph_input)'),
        ('power_modes = [{ id = "0", name = "x" }]', "({path}: power_modes.0.id)"),
        ('power_modes = [{ id = 0, name = "x" }, { id = 0, name = "y" }]', "share a number"),
        ('base = "jp6.2"', "not a TOML file"),
        ('[sources]\nram_gib = "sourced: x"', "[sources] names the unknown field 'ram_gib'"),
        ('title = "t"\n[sources]\ntitle = "a guess"', "({path}: sources.title)"),
    ],
)
def test_a_wrong_board_file_names_its_field_in_one_line(
    tmp_path: Path, line: str, fault: str
) -> None:
    path = write(tmp_path, f'base = "jetson"\n{line}\n')
    assert fault.format(path=path) in refusal(path)


def test_a_board_that_says_too_little_is_told_what_it_lacks(tmp_path: Path) -> None:
    lacking = "target lacks backend, recommended_opset, max_opset"
    assert lacking in refusal(write(tmp_path, 'family = "arm"\n'))


def test_targets_show_prints_every_field_with_source_and_evidence() -> None:
    shown = invoke("targets", "show", "orin-nano-4gb-super").stdout
    document = json.loads(invoke("targets", "show", "jetson", "--json").stdout)
    assert {"sourced", "derived", "unverified"} <= set(shown.split())
    assert "power_mode_2" in shown
    assert document["name"] == "orin-nano-8gb-super@jp6.2"
    assert document["facts"]["tensorrt"]["evidence"] == "sourced"
    assert document["quantization"]["name"] == "tensorrt-qdq"


def test_targets_list_names_everything_that_load_target_takes() -> None:
    document = json.loads(invoke("targets", "list", "--json").stdout)
    assert [name for row in document["targets"] for name in row["targets"]] == list_targets()
    shown = invoke("targets", "list").stdout
    assert all(name in shown for name in (*MODULES, *BOARDS, "6.2.2 + 16", "jetson = "))


def test_an_unknown_exporter_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown exporter 'onxn'"):
        load_exporter("onxn")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x\ntouch owned\n", "", "letters, digits and"),
        ("$(touch owned)", "", "letters, digits and"),
        ("a b", "", "letters, digits and"),
        ("-rf", "", "letters, digits and"),
        ("board", 'title = "a\\u001b]0;owned\\u0007"', r"hidden character U\+001B"),
        ("board", 'caveats = ["a\\u202eb"]', r"hidden character U\+202E"),
        ("board", 'title = "two\\nlines"', r"hidden character U\+000A"),
        ("board", 'power_modes = [{id = 0, name = "x; reboot"}]', "power_modes.0.name"),
        ("board", 'power_modes = [{id = 0, name = "`id`"}]', "power_modes.0.name"),
    ],
)
def test_a_board_whose_words_could_run_or_move_the_terminal_is_refused(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    path = tmp_path / f"{name}.toml"
    path.write_text(f'base = "orin-nano-8gb@jp6.2"\n{text}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=said) as caught:
        load_target(str(path))
    assert "\x1b" not in str(caught.value)
