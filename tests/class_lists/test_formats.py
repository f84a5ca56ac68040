"""Lists of other tools for cat, dog and horse: read as these, or refused by their format's name."""

import contextlib
import time
from pathlib import Path

import pytest

from dfkd_edge.class_lists.formats import translate
from dfkd_edge.class_names import RESERVED, parse_class_names, read_given_list
from dfkd_edge.errors import ClassNamesError
from dfkd_edge.runtime.confidence import UNKNOWN

NAMES = ("cat", "dog", "horse")
COCO = '{"categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}, '
COCO += '{"id": 19, "name": "horse", "supercategory": "animal"}], "images": []}'
READ = {
    "Teachable Machine": ("0 cat\n1 dog\n2 horse\n", "numbers before"),
    "Teachable Machine's metadata": ('{"tfjsVersion": "1", "labels": ["cat","dog","horse"]}', "'l"),
    "numbers with dots": ("1. cat\n2. dog\n3. horse\n", "numbers before"),
    "numbers with colons": ("0: cat\n1: dog\n2: horse\n", "numbers before"),
    "numbers behind": ("cat 0\ndog 1\nhorse 2\n", "numbers behind"),
    "another order": ("2 horse\n0 cat\n1 dog\n", "numbers before"),
    "tabs": ("0\tcat\n1\tdog\n2\thorse\n", "a table with tabs"),
    "tabs behind": ("cat\t0\ndog\t1\nhorse\t2\n", "a table with tabs"),
    "commas": ("0,cat\n1,dog\n2,horse\n", "a table with commas"),
    "counts": ("cat,812\ndog,77\nhorse,90\n", "numbers or ids beside"),
    "a header": ("id,name\n0,cat\n1,dog\n2,horse\n", "column 'name'"),
    "semicolons": ("Class;ID\ncat;0\ndog;1\nhorse;2\n", "column 'Class'"),
    "OpenImages": ("/m/01yrx,cat\n/m/0bt9lr,dog\n/m/03k3r,horse\n", "ids beside"),
    "OpenImages's header": (
        "LabelName,DisplayName\n/m/01yrx,cat\n/m/0bt9lr,dog\n/m/03k3r,horse\n",
        "column 'DisplayName'",
    ),
    "LVIS": (
        'id,name,synset,def\n1,cat,cat.n.01,"a, b"\n2,dog,dog.n.01,x\n3,horse,horse.n.01,y\n',
        "column 'name'",
    ),
    "trailing commas": ("cat,\ndog,\nhorse,\n", "commas behind"),
    "lines of code": ("'cat',\n'dog',\n'horse'\n", "commas behind"),
    "quotes": ('"cat"\n"dog"\n"horse"\n', "quotes"),
    "bullets": ("- cat\n- dog\n- horse\n", "a list in YAML"),
    "YOLO": ("path: ../x\nnames:\n  0: cat\n  1: dog  # hound\n  2: 'horse'\nnc: 3\n", "'names'"),
    "YOLO's list": ("train: a\nnc: 3\nnames: ['cat', 'dog', 'horse']\n", "YAML, key 'names'"),
    "YOLO's lines": ("names: [cat,\n  dog,\n  horse]\n", "YAML, key 'names'"),
    "YOLO's dashes": ("names:\n- cat\n- dog\n- horse\n", "YAML, key 'names'"),
    "YOLO's flow": ("names: {0: cat, 1: dog, 2: horse}\n", "YAML, key 'names'"),
    "COCO in YAML": (
        "categories:\n  - id: 1\n    name: cat\n  - id: 2\n    name: dog\n  - name: horse\n",
        "YAML, key 'categories'",
    ),
    "COCO": (COCO, "names of a list in JSON, key 'categories'"),
    "a JSON list": ('["cat", "dog", "horse"]', "a list in JSON"),
    "CVAT": ('[{"name": "cat", "attributes": []}, {"name": "dog"}, {"name": "horse"}]', "names of"),
    "CVAT in XML": (
        (
            "<labels><label><name>cat</name></label><label>\n<name>dog</name></label>\n<label>"
            "<name>horse</name></label></labels>"
        ),
        "CVAT",
    ),
    "Datumaro": (
        '{"categories": {"label": {"labels": [{"name":"cat"},{"name":"dog"},{"name":"horse"}]}}}',
        "names of a list",
    ),
    "Label Studio": (
        (
            '<View><Image name="i" value="$i"/>\n<Choice value="cat"/>'
            '<Choice alias="d" value="dog"/><Choice value="horse"/></View>'
        ),
        "Label Studio",
    ),
    "Keras": ('{"horse": 2, "cat": 0, "dog": 1}', "a map of names to numbers"),
    "Hugging Face": ('{"id2label": {"0": "cat", "1": "dog", "2": "horse"}}', "'id2label'"),
    "a map": ('{"0": "cat", "10": "horse", "2": "dog"}', "numbered anew without the gaps"),
    "TensorFlow": (
        "item {\n  id: 1\n  name: 'cat'\n}\nitem {\n name: \"dog\"\n}\nitem { name: 'horse' }",
        "label map",
    ),
    "Edge Impulse": (
        'const char* ei_classifier_inferencing_categories[] = {\n"cat", "dog", "horse" };',
        "Edge Impulse",
    ),
    "ImageNet synset words": (
        "n02121620 cat, true cat\nn02084071 dog, domestic dog\nn02374451 horse, Equus\n",
        "WordNet ids with words, the first of each",
    ),
    "ImageNet map_clsloc": ("n02121620 1 cat\nn02084071 2 dog\nn02374451 3 horse\n", "WordNet"),
    "ImageNet words.txt": ("n02121620\tcat\nn02084071\tdog\nn02374451\thorse\n", "WordNet"),
    "Stanford Dogs": ("n02121620-cat\nn02084071-dog\nn02374451-horse\n", "WordNet"),
    "numbers and ids": ("0 n02121620 cat\n1: n02084071 dog\n2, n02374451, horse\n", "WordNet"),
    "a header of ids": ("wnid,words\nn02121620,cat\nn1,dog\nn2,horse\n", "column 'words'"),
    "Keras class index": (
        '{"0": ["n02121620", "cat"], "1": ["n02084071", "dog"], "2": ["n02374451", "horse"]}',
        "ids, words",
    ),
    "ids to words": (
        '{"n02121620": "cat, true cat", "n02084071": "dog", "n02374451": "horse"}',
        "WordNet ids to words",
    ),
    "CVAT's label map": (
        "# label:color_rgb:parts:actions\ncat:1,0,0::\ndog:0,9,0::\nhorse:0,0,7::\n",
        "label map of CVAT",
    ),
    "a header in German": ("\ufeffNr;Klasse\n1;cat\n2;dog\n3;horse\n", "semicolons"),
    "numbers behind a word": ("class 0: cat\nClass 1: dog\nclass 2: horse\n", "numbers before"),
    "typed bullets": ("\u2022 cat\n\u2022 dog\n\u2022 horse\n", "a list in YAML or Markdown"),
    "TensorFlow in another order": (
        "item { id: 3 name: 'horse' }\nitem { id: 1 name: 'cat' }\nitem { id: 2 name: 'dog' }",
        "label map",
    ),
    "pandas": (",label\n0,cat\n1,dog\n2,horse\n", "column 'label'"),
    "pandas without a name": (",0\n0,cat\n1,dog\n2,horse\n", "beside the names"),
    "Excel": ("sep=;\nid;name\n2;horse\n0;cat\n1;dog\n", "column 'name'"),
    "floats": ("1.0,dog\n0.0,cat\n2.0,horse\n", "beside the names"),
    "counts in German": ("Klasse;Anzahl\ncat;1.234\ndog;2,5\nhorse;2\n", "semicolons"),
    "counts do not sort": ("name,count\ncat,2\ndog,3\nhorse,1\n", "column 'name'"),
    "colons behind": ("cat: 0\ndog: 1\nhorse: 2\n", "numbers behind"),
    "underscores": ("0_cat\n1_dog\n2_horse\n", "numbers before"),
    "boxes": ("- [ ] cat\n- [x] dog\n- [ ] horse\n", "a list in YAML"),
    "a key on each line": (
        "label: cat\nlabel: dog\nlabel: 'horse'\n",
        "lines with the key 'label'",
    ),
    "COCO in YAML, by id": (
        "categories:\n- id: 3\n  name: horse\n- id: 1\n  name: cat\n- id: 2\n  name: dog\n",
        "YAML, key 'categories'",
    ),
    "darknet .names": ("cat\ndog\nhorse\n", ""),
}
REFUSED = {
    "n02123045\nn02084071\n": "WordNet ids without words",
    "0 n02123045\n1 n02084071\n": "WordNet ids without words",
    "names: [n02123045, n02084071]\n": "'n02123045' holds an id of WordNet",
    '["N02123045", "dog"]': "'N02123045' holds an id of WordNet",
    '{"n02123045": 0, "n02084071": 1}': "holds an id of WordNet",
    "train/n02123045\ntrain/n02084071\n": "holds an id of WordNet",
    "cat n02121620\ndog n02084071\n": "holds an id of WordNet",
    "wn:02121620n\nwn:02084071n\n": "holds an id of WordNet",
    "cat.n.01\ndog.n.01\n": "holds an id of WordNet",
    "classes = 3\ntrain = x\nnames = obj.names\n": r"settings such as darknet's \.data",
    "path: ../x\nnc: 3\n": "YAML without names",
    "names: [bus, car\n": "YAML whose .* is not closed",
    "names:\n  0: bus\n  1: car\n  3: truck\n": "numbers that do not run from 0 or 1 without a gap",
    "nc: 3\nnames: [bus, car]\n": "2 of 3 names",
    '{"a": [1, 2]}': "JSON without a list or map",
    '{"cat": 1,': "JSON or Python that cannot be read",
    "['cat', 'dog']": "JSON or Python that cannot be read",
    "dataset:\n  names: [cat, dog]\n": "YAML without names that begin a line",
    "names: &n\n  0: cat\n  1: dog\n": "YAML without names that begin a line",
    "names: [cat, dog]\nnames: [bus, car]\n": "the key 'names' twice",
    'names: ["a", "b ] c", "d"]\n': "YAML with brackets in quotes",
    "names: [[cat, dog], [x]]\n": "YAML with lists in a list",
    '{"cat": 0, "dog": 0}': "JSON with one number for two names",
    '{"01": "cat", "1": "dog"}': "JSON with one number for two names",
    '"cat": 0,\n"dog": 1\n': "lines of a dictionary in code",
    "1,cat,animal\n2,dog,animal\n": "a table without a header",
    "1,cat\n2\n3,dog\n": "whose rows differ in length",
    'id,name\n1,"cat\nbig"\n2,dog\n': "line breaks in quotes",
    "[data]\nnames = x\n": "settings in TOML or INI",
    "%PDF-1.4\ncat\n": "a PDF",
    "(lp0\nVcat\np1\na.": "a pickle",
    "cat\ta photo of a {}\ndog\n": "the prompt holds {}, which nothing fills",
    "filename,label\na.jpg,cat\nb.jpg,dog\n": "a table of pictures",
    "gs://b/a.jpg,cat\ngs://b/b.jpg,dog\n": "a table of pictures",
    '{"0": "cat", "0": "dog", "1": "horse"}': "JSON with one key twice",
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY b "x">]><label><name>&b;</name></label>': (
        "XML that defines words of its own"
    ),
    "item { id: 1 }\nitem { id: 2 name: 'cat' }\n": "some of whose items have no name",
    f"names: [{chr(39) * 2001}]\n": "name or prompt of 2000 characters",
    "id,count\n1,2\n2,3\n": "a table without a column of names",
    "label\ncat\ndog\n": "a column under the header 'label'",
    "<?xml version='1.0'?>\n<a/>": "XML",
    '["cat", "a\\nb"]': "names that are empty, or hold a tab or a line break",
    "#include <x>\nimport torch\n": "source code",
    "a: &x [cat, dog]\nnames: *x\n": "YAML without names that begin a line",
    '{"cat": 0, "kitten": 0}': "one number for two names",
    '[{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}]': "JSON with one number for two names",
    "0,cat,animal\n1,dog,animal\n": "a table without a header",
    "[classes]\n0=cat\n1=dog\n": "settings in TOML or INI",
    "cat # my pet\ndog\n": "'cat # my pet' begins like an item .* or holds a comment",
    "cat\n- dog\n": "'- dog' begins like an item of a list",
}


@pytest.mark.parametrize("tool", READ)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_list_of_another_tool_is_read_as_its_names(
    tmp_path: Path, tool: str, ending: str
) -> None:
    text, said = READ[tool]
    path = tmp_path / "list"
    path.write_bytes(text.replace("\n", ending).encode())
    class_names, how = read_given_list(path)
    assert class_names.names == NAMES
    assert class_names.prompts == (None,) * 3
    assert said in how
    assert bool(how) is (tool != "darknet .names")


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_read_is_refused_by_the_name_of_its_format(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ClassNamesError, match=REFUSED[text]):
        read_given_list(path)


@pytest.mark.parametrize(
    "text",
    [
        "cat\ndog\n",
        "cat\ta photo of a cat\ndog\ta photo of a dog, 3 years\n",
        "1 euro\n2 euro\n5 euro\n",
        "Class 1\nClass 2\n",
        "tench, Tinca tinca\ngoldfish, Carassius auratus\n",
        "1\n2\n3\n",
        "[red]dog[/red]\n<b>cat</b>\n",
        "boeing 737\nairbus 320\n",
        "# names\ncat: black\ndog\n",
        "7up\ncoca-cola\n",
        "- \ncat\n",
    ],
)
def test_a_list_of_ours_is_left_as_it_is(text: str) -> None:
    assert translate(text, "x") == (text, "")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\3\4\xff", "ZIP archive"),
        (b"\xff\xfec\0a\0t\0", "UTF-16"),
        (b"\xe9t\xe9\n", "save it as UTF-8"),
    ],
)
def test_what_is_no_text_is_told_by_what_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(ClassNamesError, match=f"not UTF-8 text.*{said}"):
        read_given_list(tmp_path / "list")


def test_quotes_of_one_kind_may_hold_the_other() -> None:
    pbtxt = 'item {\n id: 1\n name: "driver\'s licence"\n}\nitem {\n id: 2\n name: \'a "b"\'\n}'
    assert translate(pbtxt, "map")[0].splitlines() == ["driver's licence", 'a "b"']
    yaml = "names: ['driver''s licence', \"a \\\"b\\\"\"]"
    assert translate(yaml, "yaml")[0].splitlines() == ["driver's licence", 'a "b"']
    studio = """<View><Choice value="worker's vest"/><Choice value='hat'/></View>"""
    assert translate(studio, "xml")[0].splitlines() == ["worker's vest", "hat"]


@pytest.mark.parametrize("name", ["unknown", "__ignore__", "Unknown", "__background__"])
def test_the_words_of_a_refusal_are_no_classes(tmp_path: Path, name: str) -> None:
    (tmp_path / "list").write_text(f"{name}\ta photo of a dog\ncat\n", encoding="utf-8")
    with pytest.raises(ClassNamesError, match=f"'{name}' is no name for a class"):
        read_given_list(tmp_path / "list")
    assert UNKNOWN in RESERVED


def test_a_list_that_was_kept_is_read_again_as_it_is() -> None:
    kept = "1 cat\n2 dog\n"
    assert parse_class_names(kept, "run/classes.txt").names == ("1 cat", "2 dog")


@pytest.mark.parametrize(
    "part",
    [" ", "names: [", "<Label ", "'", "inferencing_categories[", "1 ", "[", '{"a":', ",", "\t"],
)
def test_no_list_takes_long_however_it_is_made(part: str) -> None:
    text = ("x" + part * (1 << 20))[: 1 << 20]
    began = time.process_time()
    for start in ("", "names:\n", "<View>", "{"):
        with contextlib.suppress(ClassNamesError):
            translate(start + text + "\n" + start + text[1:], "x")
    assert time.process_time() - began < 10
