"""What an error of ONNX Runtime means. It gives no exception type or code for a device's fault, only a text."""

from collections.abc import Mapping

from inference.basics.errors import DeviceLostError, DeviceMemoryError, SessionError

# Kept of a long text: its end has the reason, after the C++ signature of a function.
HEAD, TAIL = 100, 300
MEMORY_TEXTS = (
    "out of memory",
    "failed to allocate memory",
    "bad allocation",
    "bad_alloc",
    "alloc_failed",
    "can't start new thread",
)
# CUDA runtime API, enum cudaError: code -> text of the errors after which the process must end to use the device again,
# or that every model would meet. ONNX Runtime prints both.
LOST: Mapping[int, str] = {
    3: "initialization error",
    35: "driver version is insufficient",
    46: "is/are busy or unavailable",
    100: "no cuda-capable device",
    209: "no kernel image is available",
    214: "uncorrectable ecc error",
    220: "uncorrectable nvlink error",
    222: "compiled with an unsupported toolchain",
    700: "illegal memory access",
    702: "launch timed out",
    709: "context is destroyed",
    710: "device-side assert",
    714: "hardware stack error",
    715: "illegal instruction",
    716: "misaligned address",
    717: "operation not supported on global/shared address space",
    718: "invalid program counter",
    719: "unspecified launch failure",
    999: "cuda failure 999:",
}
# The same faults as cuBLAS, cuDNN and the driver name them; underscores are ignored.
LOST_NAMES = (
    "cudaerrorillegaladdress",
    "cudaerrorlaunchfail",
    "cudaerrorlaunchtimeout",
    "cudaerrornokernelimage",
    "cudaerrorassert",
    "cudaerroreccuncorrectable",
    "cublasstatusexecutionfailed",
    "cublasstatusarchmismatch",
    "cudnnstatusexecutionfailed",
    "cudnnstatusarchmismatch",
    "fallen off the bus",
    "device lost",
    "device is lost",
    "gpu is lost",
    "xid",
)


def shorten(error: Exception) -> str:
    """Return the text of an error on one line; of a long one, the first and the last characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= HEAD + TAIL else f"{text[:HEAD]} ... {text[-TAIL:]}"


def describe_fault(error: Exception, what: str) -> SessionError:
    """Return the error to raise for `what` failed: DeviceMemoryError, DeviceLostError or SessionError."""
    text = " ".join(str(error).lower().split())
    kind = SessionError
    # Memory first: a retry with less of it shows whether the device is lost.
    if isinstance(error, MemoryError) or any(part in text for part in MEMORY_TEXTS):
        kind = DeviceMemoryError
    elif is_lost(text):
        kind = DeviceLostError
    return kind(f"{what}: {shorten(error)}")


def is_lost(text: str) -> bool:
    """Return whether an error's text, in lower case, says that a GPU is lost."""
    known = any(words in text or f"cuda failure {code}:" in text for code, words in LOST.items())
    bare = text.replace("_", "")
    return known or any(name in bare for name in LOST_NAMES)
