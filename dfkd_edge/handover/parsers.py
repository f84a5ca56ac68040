"""Parsers of configurations: each text is read back as its runtime would read it, where possible.

JSON and Python are read with what Python brings; YAML, Triton's schema and GLib's key files need
libraries that may be missing. Then a text is written all the same, and said not to be checked.
"""

import ctypes
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dfkd_edge.errors import ConversionError

Parser = Callable[[str], Any]
"""Reads a text. Raises ValueError where it is refused, ImportError or OSError where the library
that reads it is not here."""
Agreement = Callable[[Mapping[str, Any]], None]
"""Compares what was read of several texts. Raises ValueError where they do not fit together."""
GLIB = "libglib-2.0.so.0"
REPORT = "report it with the bundle; leave this runtime out until then"
SCALARS = {"string": 9, "float": 2, "bool": 8, "int32": 5, "uint32": 13, "int64": 3}
"""Types of protobuf by their numbers in its descriptors."""


@dataclass(frozen=True, slots=True)
class ReadBack:
    """Which texts could not be read back, for want of which library."""

    unchecked: Mapping[str, str]

    def __str__(self) -> str:
        """Say it for a README; empty where everything was read back."""
        names = ", ".join(f"`{name}`" for name in self.unchecked)
        return f"Not checked when written, for want of {self.lacking}: {names}." if names else ""

    @property
    def lacking(self) -> str:
        """The libraries, and what installs them."""
        wanted = sorted(set(self.unchecked.values()))
        has_extra = any(name != GLIB for name in wanted)
        return ", ".join(wanted) + " (`pip install 'dfkd-edge[runtimes]'`)" * has_extra


def read_back(
    texts: Mapping[str, str], parsers: Mapping[str, Parser], agree: Agreement | None = None
) -> ReadBack:
    """Let every text be parsed: by the parser that a runtime names, or by one for its suffix.

    Args:
        texts: by their place in the runtime's folder.
        parsers: that the runtime names, for some of them.
        agree: compares what these found, where all could be read.

    Raises:
        ConversionError: a parser refuses what was written for it, or texts contradict each other.
    """
    unchecked, found = {}, {}
    for name, text in texts.items():
        parse = parsers.get(name) or BY_SUFFIX.get(name.rpartition(".")[2])
        try:
            if parse:
                found[name] = parse(text)
        except ImportError as error:
            unchecked[name] = (error.name or str(error)).partition(".")[0]
        except OSError:
            unchecked[name] = GLIB
        except (ValueError, SyntaxError) as error:
            what = str(error).strip().splitlines()[0]
            raise ConversionError(
                f"refused by its parser: {what}", where=name, hint=REPORT
            ) from error
    if agree and parsers.keys() <= found.keys():
        try:
            agree(found)
        except ValueError as error:
            raise ConversionError(str(error), where=", ".join(parsers), hint=REPORT) from error
    return ReadBack(unchecked)


def as_yaml(text: str) -> Any:
    """Read YAML."""
    import yaml  # type: ignore[import-untyped]

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def triton_model(text: str) -> Any:
    """Read config.pbtxt with Triton's own schema."""
    from tritonclient.grpc import model_config_pb2

    return _parsed(text, model_config_pb2.ModelConfig())


def text_proto(root: str, messages: Mapping[str, Mapping[str, str]]) -> Parser:
    """Make a parser of protobuf's text format from a table of messages and their fields.

    Args:
        root: the message that a text is.
        messages: fields by message; a type is a scalar, a message of the table or an enumeration
            `A|B|C`, after `repeated ` where there may be several.
    """

    def parse(text: str) -> Any:
        from google.protobuf import descriptor_pool, message_factory  # type: ignore[import-untyped]

        pool = descriptor_pool.DescriptorPool()
        pool.AddSerializedFile(_described(messages).SerializeToString())
        descriptor = pool.FindMessageTypeByName(root)
        return _parsed(text, message_factory.GetMessageClass(descriptor)())

    return parse


def key_file(text: str) -> dict[str, dict[str, str]]:
    """Read groups and keys with GLib, as GStreamer's elements do.

    Raises:
        ValueError: GLib refuses it.
        OSError: GLib is not here.
    """
    glib = ctypes.CDLL(GLIB)
    for name in ("g_key_file_new", "g_key_file_get_groups", "g_key_file_get_keys"):
        getattr(glib, name).restype = ctypes.c_void_p
    glib.g_key_file_get_string.restype = ctypes.c_char_p
    file, fault = ctypes.c_void_p(glib.g_key_file_new()), ctypes.POINTER(_GError)()
    raw = text.encode()
    if not glib.g_key_file_load_from_data(file, raw, ctypes.c_size_t(len(raw)), 0, _at(fault)):
        raise ValueError(fault.contents.message.decode())
    return {
        group.decode(): {
            key.decode(): glib.g_key_file_get_string(file, group, key, None).decode()
            for key in _strings(glib.g_key_file_get_keys(file, group, None, None))
        }
        for group in _strings(glib.g_key_file_get_groups(file, None))
    }


class _GError(ctypes.Structure):
    _fields_ = (("domain", ctypes.c_uint32), ("code", ctypes.c_int), ("message", ctypes.c_char_p))


def _at(pointer: Any) -> Any:
    return ctypes.byref(pointer)


def _strings(address: int) -> list[bytes]:
    array = ctypes.cast(address, ctypes.POINTER(ctypes.c_char_p))
    found = list[bytes]()
    while array[len(found)]:
        found.append(array[len(found)])
    return found


def _parsed(text: str, message: Any) -> Any:
    from google.protobuf import text_format

    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise ValueError(str(error)) from error


def _described(messages: Mapping[str, Mapping[str, str]]) -> Any:
    from google.protobuf import descriptor_pb2

    file = descriptor_pb2.FileDescriptorProto(name="table.proto", syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for number, (key, kind) in enumerate(fields.items(), 1):
            label = 3 if kind.startswith("repeated ") else 1
            field = message.field.add(name=key, number=number, label=label)
            kind = kind.removeprefix("repeated ")
            if kind in SCALARS:
                field.type = SCALARS[kind]
            elif kind in messages:
                field.type, field.type_name = 11, kind
            else:
                field.type, field.type_name = 14, f"{name}.{key.title()}"
                enum = message.enum_type.add(name=key.title())
                for value, text in enumerate(kind.split("|")):
                    enum.value.add(name=text, number=value)
    return file


def _compiles(text: str) -> None:
    compile(text, "text.py", "exec")


BY_SUFFIX: Mapping[str, Parser] = {
    "json": json.loads,
    "py": _compiles,
    "yaml": as_yaml,
}
