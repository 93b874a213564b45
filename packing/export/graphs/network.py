"""The graph of a torch network: normalisation and activation in one module, traced, with views around it."""

import onnx
import torch

from inference.basics.errors import ExportError
from packing.export.graphs.form import Form
from packing.export.graphs.parts import name_logits, pool_globally
from packing.export.graphs.views import trace_views
from zoo.activation import activate
from zoo.grey import to_grey
from zoo.onnx_export import trace_module
from zoo.onnx_limits import LARGEST

EXPORT_BATCH = 2
MOST_AT_ONCE = 4096


class KernelNetwork(torch.nn.Module):
    """A network from uint8 images (batch, height, width, 3) to scores (batch, outputs)."""

    def __init__(self, network: torch.nn.Module, form: Form) -> None:
        super().__init__()
        self.activation = form.activation
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        mean, std = torch.tensor(form.mean), torch.tensor(form.std)
        self.is_grey = len(form.mean) == 1
        self.network = network
        self.register_buffer("scale", (1 / (255 * std)).view(1, -1, 1, 1))
        self.register_buffer("shift", (-mean / std).view(1, -1, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Normalise, run the network, apply the activation."""
        shown = to_grey(image) if self.is_grey else image
        normalised = shown.permute(0, 3, 1, 2).float() * self.scale + self.shift
        return activate(self.network(normalised), self.activation)


def build_graph(network: torch.nn.Module, form: Form) -> onnx.ModelProto:
    """Return the graph of a network, from uint8 images and views to the merged score of views.

    Raises ExportError: torch cannot trace it, or it is too large for a file of ONNX.
    """
    # Tracing would take several times the memory, and only then fail.
    size = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    if size > LARGEST:
        raise ExportError(
            f"found weights of {size / 1e9:.1f} GB; an ONNX file has at most {LARGEST / 1e9:.1f} GB; "
            "choose a smaller network"
        )
    return finish_graph(trace_graph(KernelNetwork(network, form), form), form)


def trace_graph(network: KernelNetwork, form: Form) -> onnx.ModelProto:
    """Trace the ONNX graph of a network, with any batch size. Raises ExportError: torch cannot trace it."""
    example = torch.zeros(EXPORT_BATCH, *form.size, 3, dtype=torch.uint8)
    graph = trace_module(network, example, "image", "probabilities", MOST_AT_ONCE)
    pool_globally(graph)
    return graph


def finish_graph(graph: onnx.ModelProto, form: Form) -> onnx.ModelProto:
    """Add views to a graph of one view, and name its logits; changes and returns `graph`. Raises ExportError."""
    scores = trace_views(graph, form)
    name_logits(graph.graph, scores, form.activation)
    return graph
