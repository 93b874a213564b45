"""The accelerators that a kernel can request, one row per accelerator."""

from collections.abc import Mapping
from dataclasses import dataclass

from inference.basics.errors import PackError


@dataclass(frozen=True)
class Rates:
    """Speed of one device in one precision."""

    tflops: float
    """Peak as published."""
    bandwidth: float
    """Peak as published, GB/s."""
    efficiency: float
    """Share of both peaks that networks reach in practice."""
    source: str
    """Where the efficiency comes from."""


@dataclass(frozen=True)
class Accelerator:
    """One choice of `--accelerator`."""

    name: str
    machine_shape: str
    """Kaggle's name of the machine; empty without a GPU."""
    devices: int
    """Number of GPUs."""
    capability: tuple[int, int] | None
    """CUDA compute capability; None without a GPU."""
    memory: int
    """GB per GPU; without a GPU, of the machine."""
    precision: str
    """The fastest one."""
    wheels: str
    """What `pack --wheels` should include for it."""
    rates: Mapping[str, Rates]
    """By precision."""
    notice: str | None = None
    """A warning for users who choose it."""


# The published figures: NVIDIA's datasheets "T4 Tensor Core GPU" (8.1 TFLOP/s single, 65 mixed precision, 300 GB/s),
# "Tesla P100" for PCIe with 16 GB (9.3 single, 18.7 half, 732 GB/s) and "L4 Tensor Core GPU" (30.3 single, 242 with
# sparsity, so 121 without, in FP16 on tensor cores, 300 GB/s).
# The T4's efficiencies make packing/plan/estimate.py give what NVIDIA's DeepLearningExamples published for
# SE-ResNeXt101-32x4d at 224 px: 164 images/s in fp32, 482 to 527 in fp16 (fitted to the middle). This is one network in
# another framework. The P100 and the L4 use the T4's efficiencies, because none are published for them.
T4_SOURCE = "from one published rate (SE-ResNeXt101 at 224 px)"
ASSUMED = "assumed equal to the T4's, not measured"
FP32_EFFICIENCY, FP16_EFFICIENCY = 0.578, 0.516
T4_RATES = {"fp32": Rates(8.1, 300, FP32_EFFICIENCY, T4_SOURCE), "fp16": Rates(65, 300, FP16_EFFICIENCY, T4_SOURCE)}
P100_RATES = {"fp32": Rates(9.3, 732, FP32_EFFICIENCY, ASSUMED), "fp16": Rates(18.7, 732, FP32_EFFICIENCY, ASSUMED)}
L4_RATES = {"fp32": Rates(30.3, 300, FP32_EFFICIENCY, ASSUMED), "fp16": Rates(121, 300, FP16_EFFICIENCY, ASSUMED)}
# No figures are published for a part of a server's cores. Both rates are measured (benchmarks/plan.py) on two cores, so
# the efficiency is 1. Kaggle's four virtual CPUs are two cores too.
CPU_RATES = {"fp32": Rates(0.166, 19.0, 1.0, "measured on two cores with AVX2")}
P100_NOTICE = (
    "Kaggle has retired the P100: a kernel that requests it runs on NvidiaTeslaT4, which has two T4s. "
    "The bundle still runs on a P100 outside Kaggle, with `--wheels cudnn`"
)
L4_NOTICE = "Kaggle offers the L4 in some competitions only; in others the kernel gets the default GPU"
# The shapes are documented by Kaggle's client (docs/kernels.md). A T4 has tensor cores for fp16. A P100 has none: it
# computes fp16 at twice the rate of fp32, and ONNX Runtime gains little from it.
ACCELERATORS = (
    Accelerator("T4x2", "NvidiaTeslaT4", 2, (7, 5), 15, "fp16", "onnxruntime", T4_RATES),
    Accelerator("P100", "NvidiaTeslaP100", 1, (6, 0), 16, "fp32", "cudnn", P100_RATES, P100_NOTICE),
    Accelerator("L4", "NvidiaL4X1", 1, (8, 9), 24, "fp16", "onnxruntime", L4_RATES, L4_NOTICE),
    Accelerator("CPU", "", 0, None, 31, "fp32", "onnxruntime", CPU_RATES),
)
DEFAULT = ACCELERATORS[0]


def find_accelerator(name: str) -> Accelerator:
    """Return the accelerator of that name, ignoring case. Raises PackError, which lists the names."""
    for accelerator in ACCELERATORS:
        if accelerator.name.lower() == name.lower():
            return accelerator
    known = ", ".join(accelerator.name for accelerator in ACCELERATORS)
    raise PackError(f"--accelerator: found {name!r}; wanted one of: {known}")


def find_rates(accelerator: Accelerator, precision: str | None = None) -> tuple[str, Rates]:
    """Return the precision (default: the accelerator's fastest) and its rates. Raises PackError, which lists them."""
    precision = precision or accelerator.precision
    if precision not in accelerator.rates:
        known = ", ".join(accelerator.rates)
        raise PackError(f"--precision: found {precision!r}; wanted one of: {known} (on {accelerator.name})")
    return precision, accelerator.rates[precision]
