"""ONNX graphs whose weights stand in other files: made one file."""

from pathlib import Path

from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model

from inference.basics.errors import ExportError
from inference.basics.files import replace_file
from packing.export.foreign_graph import list_external_tensors, read_graph
from zoo.onnx_limits import LARGEST


def fold_weights(path: Path, out: Path) -> bool:
    """Write the graph at `path` with all its weights to `out`; return False, and write nothing, if it is one file.

    Raises ExportError: a file with weights is missing or too short, all together exceed an ONNX file, or `out` exists.
    """
    proto = read_graph(path)
    infos = [ExternalDataInfo(tensor) for tensor in list_external_tensors(proto)]
    if not infos:
        return False
    files = sorted({info.location for info in infos})
    for file in files:
        if not (path.parent / file).is_file():
            raise ExportError(
                f"{path}: its weights stand in {file}, which is missing in {path.parent}; copy it there, or export the "
                "network as one file"
            )
    sizes = {file: (path.parent / file).stat().st_size for file in files}
    size = path.stat().st_size + sum(info.length or sizes[info.location] - (info.offset or 0) for info in infos)
    if size > LARGEST:
        raise ExportError(
            f"{path}: has {size / 1e9:.2f} GB with its weights in {', '.join(files)}; wanted at most "
            f"{LARGEST / 1e9:.2f} GB, as an ONNX file is one protobuf message; export it in fp16, or choose a "
            "smaller network"
        )
    if out.exists():
        raise ExportError(
            f"{out}: already exists; wanted to write {path.name} and its weights there as one file; remove it"
        )
    try:
        load_external_data_for_model(proto, str(path.parent))
        content = proto.SerializeToString()
    except Exception as error:  # onnx refuses links and names outside of the folder, and files that are too short
        raise ExportError(f"{path}: its weights cannot be read: {' '.join(str(error).split())[:200]}") from error
    with replace_file(out) as temporary:
        temporary.write_bytes(content)
    return True
