"""The machines that a kernel can ask for, one row each."""

from dataclasses import dataclass

from inference.errors import PackError


@dataclass(frozen=True)
class Accelerator:
    """One choice of `pack --accelerator`.

    `machine_shape`: Kaggle's name of it, empty for none; `capability`: CUDA's, None without a GPU; `devices`: their
    number; `memory`: GB of each (of the machine, without a GPU); `precision`: in which it is fastest;
    `wheels`: what `pack --wheels` should carry for it; `notice`: what whoever asks for it should know.
    """

    name: str
    machine_shape: str
    devices: int
    capability: tuple[int, int] | None
    memory: int
    precision: str
    wheels: str
    notice: str | None = None


# The shapes are those that Kaggle's client documents (docs/kernels.md). A T4 has tensor cores for fp16; a P100 reads
# fp16 at twice the rate but has none, and ONNX Runtime gains little from it.
ACCELERATORS = (
    Accelerator("T4x2", "NvidiaTeslaT4", 2, (7, 5), 15, "fp16", "onnxruntime"),
    Accelerator(
        "P100",
        "NvidiaTeslaP100",
        1,
        (6, 0),
        16,
        "fp32",
        "cudnn",
        "Kaggle has retired the P100: a kernel that asks for it runs on NvidiaTeslaT4, which is two T4s. "
        "The bundle itself still runs on a P100 elsewhere, with `--wheels cudnn`",
    ),
    Accelerator(
        "L4",
        "NvidiaL4X1",
        1,
        (8, 9),
        24,
        "fp16",
        "onnxruntime",
        "Kaggle offers the L4 to some competitions only; others get their default GPU",
    ),
    Accelerator("CPU", "", 0, None, 31, "fp32", "onnxruntime"),
)
DEFAULT = ACCELERATORS[0]


def find_accelerator(name: str) -> Accelerator:
    """The row of that name, in any case of letters; raises PackError naming those that there are."""
    for accelerator in ACCELERATORS:
        if accelerator.name.lower() == name.lower():
            return accelerator
    known = ", ".join(accelerator.name for accelerator in ACCELERATORS)
    raise PackError(f"no accelerator {name!r}; wanted one of: {known}")
