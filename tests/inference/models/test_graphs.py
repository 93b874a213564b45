"""No graph may read another file; compared with the onnx package, which the kernel does not have."""

from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.onnx_ml_pb2 import ModelProto

from inference.basics.errors import SessionError
from inference.models.graphs import FIELDS, check_graph, find_external, read_fields
from inference.models.sessions import ModelSession
from tests.conftest import ZOO, Workshop


def test_the_walk_follows_every_field_that_leads_to_a_tensor() -> None:
    """FIELDS equals what onnx.proto says: each field of each message that can contain a TensorProto at any depth."""
    descriptors = {}
    pending = [ModelProto.DESCRIPTOR]
    while pending:
        descriptor = pending.pop()
        if descriptor.name not in descriptors:
            descriptors[descriptor.name] = descriptor
            pending += [field.message_type for field in descriptor.fields if field.message_type]
    holders = {"TensorProto"}
    while True:
        grown = holders | {
            name
            for name, descriptor in descriptors.items()
            if any(field.message_type and field.message_type.name in holders for field in descriptor.fields)
        }
        if grown == holders:
            break
        holders = grown
    wanted = {
        name.removesuffix("Proto"): {
            field.number: field.message_type.name.removesuffix("Proto")
            for field in descriptors[name].fields
            if field.message_type and field.message_type.name in holders
        }
        for name in holders - {"TensorProto"}
    }
    assert wanted == FIELDS


@pytest.mark.parametrize("name", ZOO)
def test_exported_networks_contain_all_their_weights(name: str, workshop: Workshop) -> None:
    check_graph(workshop.dataset / f"{name}.onnx")


def make_tensor(external: bool) -> TensorProto:
    tensor = helper.make_tensor("weight", TensorProto.FLOAT, [2], [1.0, 2.0])
    if external:
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def in_initializer(model: ModelProto, tensor: TensorProto) -> None:
    model.graph.initializer.append(tensor)


def in_constant(model: ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["constant"], value=tensor))


def in_list(model: ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(helper.make_node("Odd", [], ["odd"], values=[tensor]))


def in_sparse_initializer(model: ModelProto, tensor: TensorProto) -> None:
    indices = helper.make_tensor("indices", TensorProto.INT64, [2], [0, 1])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, indices, [4]))


def in_sparse_constant(model: ModelProto, tensor: TensorProto) -> None:
    indices = helper.make_tensor("indices", TensorProto.INT64, [2], [0, 1])
    sparse = helper.make_sparse_tensor(tensor, indices, [4])
    model.graph.node.append(helper.make_node("Constant", [], ["constant"], sparse_value=sparse))


def in_branch_of_branch(model: ModelProto, tensor: TensorProto) -> None:
    inner = helper.make_graph([], "inner", [], [], initializer=[tensor])
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    outer = helper.make_graph([node], "outer", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=outer, else_branch=outer))


def in_list_of_graphs(model: ModelProto, tensor: TensorProto) -> None:
    graphs = [helper.make_graph([], "one", [], [], initializer=[tensor])]
    model.graph.node.append(helper.make_node("Odd", [], ["odd"], graphs=graphs))


def in_function(model: ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    model.functions.append(helper.make_function("own", "f", [], ["y"], [node], [helper.make_opsetid("", 18)]))


def in_default_of_a_function(model: ModelProto, tensor: TensorProto) -> None:
    function = helper.make_function("own", "f", [], [], [], [helper.make_opsetid("", 18)])
    function.attribute_proto.append(helper.make_attribute("value", tensor))
    model.functions.append(function)


def in_training(model: ModelProto, tensor: TensorProto) -> None:
    model.training_info.add().algorithm.initializer.append(tensor)


PLACES = [
    in_initializer,
    in_constant,
    in_list,
    in_sparse_initializer,
    in_sparse_constant,
    in_branch_of_branch,
    in_list_of_graphs,
    in_function,
    in_default_of_a_function,
    in_training,
]


@pytest.mark.parametrize("put", PLACES, ids=lambda put: put.__name__)
def test_a_tensor_in_another_file_is_found_at_every_place_of_a_graph(
    put: Callable[[ModelProto, TensorProto], None], workshop: Workshop, tmp_path: Path
) -> None:
    path = tmp_path / "tag.onnx"
    for external in (False, True):
        model = onnx.load(workshop.dataset / "tag.onnx")
        put(model, make_tensor(external))
        path.write_bytes(model.SerializeToString())
        if external:
            with pytest.raises(SessionError) as error:
                check_graph(path)
            assert str(error.value) == f"{path}: stores `weight` in another file; export the model as one file"
        else:
            check_graph(path)


def test_a_session_refuses_such_a_file_although_onnx_runtime_reads_it(workshop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "tag.onnx"
    onnx.save(
        onnx.load(workshop.dataset / "tag.onnx"), path, save_as_external_data=True, location="w", size_threshold=1024
    )
    onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with pytest.raises(SessionError, match=r"^model tag: tag\.onnx does not load: .*: stores `.*` in another file;"):
        ModelSession("tag", path, 3)


def test_onnx_runtimes_own_format_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "tag.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(workshop.dataset / "tag.onnx", options, providers=["CPUExecutionProvider"])
    with pytest.raises(SessionError, match=r"tag\.ort: not an ONNX file: "):
        ModelSession("tag", tmp_path / "tag.ort", 3)


def encode(field: int, content: bytes) -> bytes:
    """Encode a field of a protobuf message, with a number below 16, that contains bytes."""
    size, digits = len(content), b""
    while size >= 128:
        digits, size = digits + bytes([size & 127 | 128]), size >> 7
    return bytes([field << 3 | 2]) + digits + bytes([size]) + content


@pytest.mark.parametrize(
    ("location", "found"),
    [
        (b"\x70\x00", None),
        (b"\x70\x80\x00", None),  # the same in two bytes
        (b"", None),
        (b"\x70\x01", "w"),
        (b"\x70\x81\x80\x80\x80\x10", "w"),  # 2^32 + 1, which protobuf reduces to 1
        (b"\x70\x00\x70\x01", "w"),  # present twice: the last counts
        (encode(13, b""), "w"),
    ],
)
def test_locations_are_read_as_protobuf_reads_them(location: bytes, found: str | None) -> None:
    tensor = encode(8, b"w") + location
    model = encode(7, encode(5, tensor))
    parsed = ModelProto.FromString(model).graph.initializer[0]
    assert (parsed.data_location == TensorProto.EXTERNAL or len(parsed.external_data) > 0) == (found is not None)
    assert find_external(memoryview(model)) == found
    # A second graph is merged into the first.
    assert find_external(memoryview(encode(7, b"") + model)) == found


def test_of_a_name_that_is_present_twice_the_last_counts() -> None:
    content = encode(8, b"first") + encode(8, b"w") + b"\x70\x01"
    assert ModelProto.FromString(encode(7, encode(5, content))).graph.initializer[0].name == "w"
    assert find_external(memoryview(encode(7, encode(5, content)))) == "w"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot mmap an empty file"),
        (b"\x08\x0a", "it has no graph"),
        (b"no model", "wire type 6 at byte 1"),
        (b"\x3a\x7f", "field 7 ends 127 bytes past its message"),
        (b"\x3a", "ends inside a number"),
        (b"\x08" + b"\xff" * 10, "a number of more than 10 bytes at byte 11"),
        (b"\x00\x00", "field 0 at byte 1"),
        (b"\x3b\x3c", "wire type 3 at byte 1"),
        (b"\x80\x80\x80\x80\x10\x00", f"field {2**29} at byte 5"),
    ],
)
def test_a_file_that_is_no_model_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(SessionError) as error:
        check_graph(path)
    assert str(error.value) == f"{path}: not an ONNX file: {reason}"


def test_the_largest_number_of_a_field_is_that_of_protobuf() -> None:
    content = b"\xf8\xff\xff\xff\x0f\x05"
    ModelProto.FromString(content)
    assert list(read_fields(memoryview(content))) == [(2**29 - 1, 5)]


def test_graphs_nested_deeper_than_pythons_stack_are_walked(tmp_path: Path) -> None:
    graph = encode(5, encode(8, b"w") + b"\x70\x01")
    for _ in range(5000):
        for field in (6, 5, 1):  # graph of an attribute of a node of the next graph
            graph = encode(field, graph)
    (tmp_path / "x.onnx").write_bytes(encode(7, graph))
    with pytest.raises(SessionError, match="stores `w` in another file"):
        check_graph(tmp_path / "x.onnx")
