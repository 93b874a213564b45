"""A check that ONNX files contain all their weights; a tensor may name any other file of the machine instead.

Walks protobuf's wire format by the field numbers of onnx.proto, up to IR version 14. Fields that the walk skips cannot
contain a tensor.
"""

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from inference.basics.errors import SessionError

# Message -> its fields that lead to tensors -> the type of message in the field.
FIELDS: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}
GRAPH_FIELD = 7
NAME, EXTERNAL_DATA, DATA_LOCATION = 8, 13, 14  # fields of a Tensor
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Value = int | memoryview


def check_graph(path: Path) -> None:
    """Raise SessionError if the file is no ONNX file or stores a tensor in another file."""
    try:
        with path.open("rb") as file:
            name = find_external(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except (OSError, ValueError) as error:  # mmap raises ValueError for an empty file
        raise SessionError(f"{path}: not an ONNX file: {error}") from error
    if name is not None:
        raise SessionError(f"{path}: stores `{name}` in another file; export the model as one file")


def find_external(model: memoryview) -> str | None:
    """Return the name of a tensor stored in another file, or None. Raises ValueError: this is no ONNX model."""
    if not any(field == GRAPH_FIELD for field, _ in read_fields(model)):
        raise ValueError("it has no graph")
    pending = [("Model", model)]  # no recursion: graphs may be nested deeper than Python's stack
    while pending:
        message, content = pending.pop()
        if message == "Tensor":
            if _is_external(content):
                return _read_name(content)
            continue
        followed = FIELDS[message]
        for field, value in read_fields(content):
            if field in followed and isinstance(value, memoryview):
                pending.append((followed[field], value))
    return None


def read_fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield (number, value) of each field; a value is a whole number, or the bytes of a string, message or packed list.

    Raises ValueError: the message is malformed, or has a group, which ONNX does not use.
    """
    place = 0
    while place < len(message):
        tag, place = _read_varint(message, place)
        field, kind = tag >> 3, tag & 7
        if not 0 < field < 1 << 29:
            raise ValueError(f"field {field} at byte {place}")
        if kind == VARINT:
            number, place = _read_varint(message, place)
            yield field, number
            continue
        if kind == BYTES:
            size, place = _read_varint(message, place)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind} at byte {place}")
        if size > len(message) - place:
            raise ValueError(f"field {field} ends {size - len(message) + place} bytes past its message")
        yield field, message[place : place + size]
        place += size


def _is_external(tensor: memoryview) -> bool:
    # Any location but 0 counts: protobuf keeps only the lower 32 bits, and unknown locations are refused too.
    return any(
        field == EXTERNAL_DATA or (field == DATA_LOCATION and value != 0) for field, value in read_fields(tensor)
    )


def _read_name(tensor: memoryview) -> str:
    names = [bytes(value) for field, value in read_fields(tensor) if field == NAME and isinstance(value, memoryview)]
    return names[-1].decode(errors="replace") if names else "a tensor without a name"


def _read_varint(message: memoryview, place: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("ends inside a number")
        byte = message[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise ValueError(f"a number of more than 10 bytes at byte {place}")
