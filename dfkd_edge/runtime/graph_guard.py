"""What an ONNX file may hold, read from its bytes: the device has no `onnx` library.

A classifier computes each node once. A graph that loops may never end, one that branches hides what
it computes, an operator of another domain runs code that no target knows, and weights in another
file are covered by no hash. These are refused before a runtime sees them.

The wire format: https://protobuf.dev/programming-guides/encoding; field numbers: onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dfkd_edge.runtime.faults import Fault, damage
from dfkd_edge.runtime.plain_text import printable
from dfkd_edge.runtime.safe_files import reading

if TYPE_CHECKING:
    Field = int | tuple[int, int]  # A number, or where bytes begin and end in the file

MAX_NODES = 20_000  # Students have some hundreds
MAX_FIELDS = 1_000_000  # Students have some thousands; each takes a microsecond here
LAST_TAG = (1 << 32) - 1  # Protobuf reads tags of 32 bits, and drops what is above
DOMAINS = ("", "ai.onnx")  # Two names of the standard one
UNBOUNDED = frozenset({"Loop", "Scan", "If", "SequenceMap"})  # They carry graphs of their own
RANDOM = frozenset(
    {
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
        *("Multinomial", "Bernoulli"),
    }
)
OF_TEXT = frozenset(
    {"StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", "TfIdfVectorizer"}
)
OTHERS = OF_TEXT | {"ImageDecoder"}  # A decoder of files that nobody looked at
# fields of ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto and ValueInfoProto
GRAPH, TRAINING, FUNCTIONS = 7, 20, 25
NODES, INITIALIZERS, FED, OUTPUTS, SPARSE = 1, 5, 11, 12, 15
INPUTS, OP_TYPE, ATTRIBUTES, DOMAIN = 1, 4, 5, 7
TENSOR, SUBGRAPH, TENSORS, SUBGRAPHS, SPARSE_TENSOR, SPARSE_TENSORS = 5, 6, 10, 11, 22, 23
EXTERNAL_DATA, DATA_LOCATION = 13, 14
NAME, TYPE = 1, 2
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # Wire types


class GraphOutline(NamedTuple):
    """What is told of a graph without running it."""

    num_nodes: int
    inputs: dict[str, tuple[int, ...]]
    """Name -> shape; 0 where a side is open."""
    outputs: dict[str, tuple[int, ...]]


def read_outline(path: Path) -> GraphOutline:
    """Read a graph and refuse what no classifier needs.

    Raises:
        Fault: it is missing, no ONNX, larger than any of ours, or holds a loop, a branch, an
            operator of another domain, a random one, or weights in another file.
    """
    try:
        with reading(path) as stream:
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            with content:
                return _Reader(content, path).outline()
    except OSError as error:
        what = f"model cannot be read: {error.strerror or error}"
        raise Fault(what, str(path)) from error
    except (ValueError, IndexError) as error:  # an empty file cannot be mapped; a cut one ends
        raise damage("file is no ONNX graph", path) from error


class _Reader:
    """Walks one file; a tensor's bytes are stepped over, so that a large model costs no time."""

    def __init__(self, content: mmap.mmap, path: Path) -> None:
        self.content, self.path, self.num_fields = content, path, 0

    def outline(self) -> GraphOutline:
        num_nodes = 0
        shapes: dict[int, dict[str, tuple[int, ...]]] = {FED: {}, OUTPUTS: {}}
        for number, graph in self.fields((0, len(self.content))):
            if number == FUNCTIONS:  # its body may hold a loop
                raise self.refusal("a function of its own")
            if number == TRAINING:
                raise self.refusal("a graph that trains")
            for inner, part in self.fields(graph) if number == GRAPH else ():
                num_nodes += inner == NODES
                if num_nodes > MAX_NODES:
                    raise self.refusal(f"more than {MAX_NODES:,} nodes")
                self.look_at(inner, part)
                if inner in shapes:
                    shapes[inner].update([self.shape_of(part)])
        if not num_nodes:
            raise ValueError("no graph")
        return GraphOutline(num_nodes, shapes[FED], shapes[OUTPUTS])

    def look_at(self, number: int, part: Field) -> None:
        """Refuse a field of the graph."""
        if number == NODES:
            self.look_at_node(part)
        elif number == INITIALIZERS:
            self.look_at_tensor(part)
        elif number == SPARSE:
            raise self.refusal("sparse weights")

    def look_at_node(self, node: Field) -> None:
        op_type, domain, num_inputs = "", "", 0
        for number, value in self.fields(node):
            num_inputs += number == INPUTS
            if number == OP_TYPE:
                op_type = self.text(value)
            elif number == DOMAIN:
                domain = self.text(value)
            elif number == ATTRIBUTES:
                self.look_at_attribute(value)
        if domain not in DOMAINS:
            raise self.refusal(f"the operator {domain}.{op_type}, which is none of ONNX")
        is_training = op_type == "Dropout" and num_inputs > 2  # the third switches it on
        if op_type in UNBOUNDED | RANDOM | OTHERS or is_training:
            raise self.refusal(f"the operator {op_type}")

    def look_at_attribute(self, attribute: Field) -> None:
        for number, value in self.fields(attribute):
            if number in (SUBGRAPH, SUBGRAPHS):
                raise self.refusal("a graph within a node")
            if number in (SPARSE_TENSOR, SPARSE_TENSORS):
                raise self.refusal("sparse weights")
            if number in (TENSOR, TENSORS):
                self.look_at_tensor(value)

    def look_at_tensor(self, tensor: Field) -> None:
        for number, value in self.fields(tensor):
            if number == EXTERNAL_DATA or (number == DATA_LOCATION and value):
                raise self.refusal("weights in another file")

    def shape_of(self, value_info: Field) -> tuple[str, tuple[int, ...]]:
        """Name and shape of a tensor: ValueInfoProto, TypeProto.Tensor, TensorShapeProto."""
        name = ""
        shape: tuple[int, ...] = ()
        for number, value in self.fields(value_info):
            if number == NAME:
                name = self.text(value)
            elif number == TYPE:
                shape = tuple(map(self.side_of, self.below(value, (1, 2, 1))))
        return name, shape

    def side_of(self, dimension: Field) -> int:
        """Side of a shape; 0 where it has a name instead."""
        sides = (value for number, value in self.fields(dimension) if number == 1)
        return next((side for side in sides if isinstance(side, int)), 0)

    def below(self, part: Field, numbers: tuple[int, ...]) -> list[Field]:
        """Fields at the end of a path of field numbers."""
        parts = [part]
        for wanted in numbers:
            parts = [v for p in parts for number, v in self.fields(p) if number == wanted]
        return parts

    def fields(self, part: Field) -> Iterator[tuple[int, Field]]:
        """Fields of a message: a number, or where its bytes are."""
        if not isinstance(part, tuple):
            raise ValueError("a number where a message belongs")
        place, end = part
        while place < end:
            self.num_fields += 1
            if self.num_fields > MAX_FIELDS:
                raise self.refusal(f"more than {MAX_FIELDS:,} fields")
            key, place = self.varint(place)
            if not 8 <= key <= LAST_TAG:  # a runtime reads another field there, or none
                raise ValueError("no field has this number")
            number, kind = key >> 3, key & 7
            if kind == VARINT:
                value, place = self.varint(place)
                yield number, value
            elif kind == BYTES:
                size, place = self.varint(place)
                yield number, (place, place + size)
                place += size
            elif kind in (FIXED64, FIXED32):
                place += 8 if kind == FIXED64 else 4
            else:
                raise ValueError(f"wire type {kind}")
        if place != end:
            raise ValueError("a field ends beyond its message")

    def varint(self, place: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.content[place]
            place += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, place
        raise ValueError("a number of more than 10 bytes")

    def text(self, part: Field) -> str:
        if not isinstance(part, tuple):
            raise ValueError("a number where a text belongs")
        return self.content[part[0] : part[1]].decode("utf-8")

    def refusal(self, what: str) -> Fault:
        """Say what the graph holds that it must not."""
        hint = "do not use this bundle"
        return Fault(f"graph holds {printable(what)}: it is refused", str(self.path), hint)
