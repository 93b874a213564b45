"""ONNX Runtime sessions: uint8 pictures in, probabilities out."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from inference.errors import SessionError
from inference.graphs import check_graph
from inference.manifest import View
from inference.views import VIEWS

PREFERRED_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


class ModelSession:
    """One model on one device."""

    def __init__(self, name: str, path: Path, outputs: int) -> None:
        """Load `path` for the model `name`, whose head has `outputs` labels; raises SessionError naming both."""
        try:
            check_graph(path)
        except SessionError as error:
            raise SessionError(f"model {name}: {path.name} does not load: {error}") from error
        options = onnxruntime.SessionOptions()
        # What was checked is what is loaded: by its content ONNX Runtime might take the file for its own format.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        available = onnxruntime.get_available_providers()
        providers = [provider for provider in PREFERRED_PROVIDERS if provider in available]
        # Fused into an asymmetric convolution, padding is refused by some cuDNN versions (onnxruntime issue 26274).
        disabled = ["Pad_Fusion"] if providers[0] != "CPUExecutionProvider" else []
        try:
            session = onnxruntime.InferenceSession(path, options, providers=providers, disabled_optimizers=disabled)
        except Exception as error:  # ONNX Runtime raises a dozen types without a common root
            raise SessionError(f"model {name}: {path.name} does not load: {_shorten(error)}") from error
        inputs = [(node.name, node.type, len(node.shape)) for node in session.get_inputs()]
        if inputs != [("image", "tensor(uint8)", 4)]:
            raise SessionError(
                f"model {name}: {path.name} takes {inputs}; wanted one input `image`, uint8 (batch, height, width, 3)"
            )
        self.name = name
        self.outputs = outputs
        # What the session really uses: a missing CUDA library makes ONNX Runtime fall back without an error.
        self.provider: str = session.get_providers()[0]
        self._session = session

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (images, labels of the model's group) of a batch (images, height, width, 3).

        Raises SessionError where the model fails, or answers in another shape or with what is not a probability.
        """
        try:
            (probabilities,) = self._session.run(None, {"image": batch})
        except Exception as error:
            raise SessionError(f"model {self.name} fails on a batch of {batch.shape}: {_shorten(error)}") from error
        if probabilities.shape != (len(batch), self.outputs):
            raise SessionError(
                f"model {self.name}: found an output of {probabilities.shape}, wanted {(len(batch), self.outputs)}"
            )
        if not (np.isfinite(probabilities).all() and probabilities.min() >= 0 and probabilities.max() <= 1):
            raise SessionError(f"model {self.name}: its output is not a probability: NaN or outside [0, 1]")
        return np.asarray(probabilities, np.float32)

    def predict_views(self, batch: NDArray[np.uint8], views: Iterable[View]) -> NDArray[np.float32]:
        """Mean over the views of the probabilities of a batch, shapes as in `predict`."""
        shown = [self.predict(VIEWS[view](batch)) for view in views]
        mean: NDArray[np.float32] = np.mean(shown, axis=0, dtype=np.float32)
        return mean


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
