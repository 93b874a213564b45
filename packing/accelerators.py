"""The machines that a kernel can ask for, one row each."""

from collections.abc import Mapping
from dataclasses import dataclass

from inference.basics.errors import PackError


@dataclass(frozen=True)
class Rates:
    """How fast one device is in one precision: `tflops` and `bandwidth` (GB/s) as published.

    `efficiency`: the part of both that networks reach in practice; `source`: where that part is from.
    """

    tflops: float
    bandwidth: float
    efficiency: float
    source: str


@dataclass(frozen=True)
class Accelerator:
    """One choice of `--accelerator`.

    `machine_shape`: Kaggle's name of it, empty for none; `capability`: CUDA's, None without a GPU; `devices`: their
    number; `memory`: GB of each (of the machine, without a GPU); `precision`: in which it is fastest;
    `wheels`: what `pack --wheels` should carry for it; `rates`: by precision; `notice`: what whoever asks for it should
    know.
    """

    name: str
    machine_shape: str
    devices: int
    capability: tuple[int, int] | None
    memory: int
    precision: str
    wheels: str
    rates: Mapping[str, Rates]
    notice: str | None = None


# The published figures: NVIDIA's datasheets "T4 Tensor Core GPU" (8.1 TFLOP/s single, 65 mixed precision, 300 GB/s),
# "Tesla P100" for PCIe with 16 GB (9.3 single, 18.7 half, 732 GB/s) and "L4 Tensor Core GPU" (30.3 single, 242 with
# sparsity, so 121 without, in FP16 on tensor cores, 300 GB/s).
# The T4's efficiencies make packing/plan/estimate.py give what NVIDIA's DeepLearningExamples published for
# SE-ResNeXt101-32x4d at 224 px: 164 images/s in fp32, 482 to 527 in fp16, whose middle is taken. One network on one
# framework, which is not ours; the P100's and the L4's are the T4's, as nobody has published theirs.
T4_SOURCE = "from one published rate, of SE-ResNeXt101 at 224 px"
ASSUMED = "assumed to be the T4's, measured by nobody"
FP32_EFFICIENCY, FP16_EFFICIENCY = 0.578, 0.516
# The shapes are those that Kaggle's client documents (docs/kernels.md). A T4 has tensor cores for fp16; a P100 reads
# fp16 at twice the rate but has none, and ONNX Runtime gains little from it.
ACCELERATORS = (
    Accelerator(
        "T4x2",
        "NvidiaTeslaT4",
        2,
        (7, 5),
        15,
        "fp16",
        "onnxruntime",
        {
            "fp32": Rates(8.1, 300, FP32_EFFICIENCY, T4_SOURCE),
            "fp16": Rates(65, 300, FP16_EFFICIENCY, T4_SOURCE),
        },
    ),
    Accelerator(
        "P100",
        "NvidiaTeslaP100",
        1,
        (6, 0),
        16,
        "fp32",
        "cudnn",
        {
            "fp32": Rates(9.3, 732, FP32_EFFICIENCY, ASSUMED),
            "fp16": Rates(18.7, 732, FP32_EFFICIENCY, ASSUMED),
        },
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
        {
            "fp32": Rates(30.3, 300, FP32_EFFICIENCY, ASSUMED),
            "fp16": Rates(121, 300, FP16_EFFICIENCY, ASSUMED),
        },
        "Kaggle offers the L4 to some competitions only; others get their default GPU",
    ),
    # Nothing is published for a share of a server's cores: both rates are measured (benchmarks/plan.py), so that the
    # efficiency is 1. On two cores; Kaggle's four virtual ones are two cores too.
    Accelerator(
        "CPU",
        "",
        0,
        None,
        31,
        "fp32",
        "onnxruntime",
        {"fp32": Rates(0.166, 19.0, 1.0, "measured on two cores with AVX2")},
    ),
)
DEFAULT = ACCELERATORS[0]


def find_accelerator(name: str) -> Accelerator:
    """The row of that name, in any case of letters; raises PackError naming those that there are."""
    for accelerator in ACCELERATORS:
        if accelerator.name.lower() == name.lower():
            return accelerator
    known = ", ".join(accelerator.name for accelerator in ACCELERATORS)
    raise PackError(f"no accelerator {name!r}; wanted one of: {known}")


def find_rates(accelerator: Accelerator, precision: str | None = None) -> tuple[str, Rates]:
    """The precision, None for the accelerator's own, and its rates; raises PackError naming those that there are."""
    precision = precision or accelerator.precision
    if precision not in accelerator.rates:
        known = ", ".join(accelerator.rates)
        raise PackError(f"--precision: no rates for {precision!r} on {accelerator.name}; wanted one of: {known}")
    return precision, accelerator.rates[precision]
