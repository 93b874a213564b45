"""Grey images against Pillow's conversion, all 256 levels of each channel and random colours."""

import numpy as np
import onnxruntime
import torch
from PIL import Image

from zoo.grey import to_grey
from zoo.onnx_export import trace_module


class Grey(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return to_grey(image).float()


def test_grey_has_the_bits_of_pillow_in_torch_and_in_onnx() -> None:
    levels = np.arange(256, dtype=np.uint8)
    pure = [np.stack([levels * keep for keep in channels], axis=-1) for channels in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    colours = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    image = np.concatenate([np.stack([*pure, np.stack([levels] * 3, axis=-1)]), colours])
    wanted = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    assert (to_grey(torch.from_numpy(image)).numpy() == wanted).all()
    graph = trace_module(Grey(), torch.zeros(2, 256, 3, dtype=torch.uint8), "image", "grey", 4096)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": image})
    assert (found == wanted).all()
