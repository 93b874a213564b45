"""Grey images for networks of one channel, with the bits of Pillow's conversion."""

import torch

# Weights of red, green and blue (ITU-R 601-2), in shares of 65536; source: Pillow, src/libImaging/Convert.c.
WEIGHTS = (19595, 38470, 7471)
UNIT = 65536


def to_grey(images: torch.Tensor) -> torch.Tensor:
    """Convert uint8 images (…, 3) to int32 (…, 1) as `Image.convert("L")` does; also when it is traced to ONNX."""
    weighted = images.to(torch.int32) * torch.tensor(WEIGHTS, dtype=torch.int32, device=images.device)
    return torch.div(weighted.sum(dim=-1, keepdim=True, dtype=torch.int32) + UNIT // 2, UNIT, rounding_mode="floor")
