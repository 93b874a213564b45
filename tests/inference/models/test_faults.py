"""Texts of ONNX Runtime's errors, as found in its issues, and what they mean."""

import pytest

from inference.basics.errors import DeviceLostError, DeviceMemoryError, SessionError
from inference.models.faults import HEAD, TAIL, describe_fault, shorten

CALL = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: /onnxruntime_src/onnxruntime/core/"
    "providers/cuda/cuda_call.cc:129 std::conditional_t<THRW, void, onnxruntime::common::Status> onnxruntime::CudaCall("
    "ERRTYPE, const char*, const char*, SUCCTYPE, const char*, const char*, int) [with ERRTYPE = cudaError; "
    "bool THRW = true; SUCCTYPE = cudaError; std::conditional_t<THRW, void, common::Status> = void] "
)
PLACE = (
    " ; GPU=0 ; hostname=x ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/gpu_data_transfer.cc ; line=75 ; "
)


@pytest.mark.parametrize(
    "text",
    [
        f"{CALL}CUDA failure 700: an illegal memory access was encountered{PLACE}expr=cudaMemcpyAsync(dst, src);",
        f"{CALL}CUDA failure 719: unspecified launch failure{PLACE}",
        f"CUDA failure 999: unknown error{PLACE}",
        f"CUDA failure 702: the launch timed out and was terminated{PLACE}",
        f"CUDA failure 710: device-side assert triggered{PLACE}",
        f"CUDA failure 714: hardware stack error{PLACE}",
        f"CUDA failure 715: an illegal instruction was encountered{PLACE}",
        f"CUDA failure 716: misaligned address{PLACE}",
        f"CUDA failure 717: operation not supported on global/shared address space{PLACE}",
        f"CUDA failure 718: invalid program counter{PLACE}",
        f"CUDA failure 709: context is destroyed{PLACE}",
        f"CUDA failure 214: uncorrectable ECC error encountered{PLACE}",
        f"CUDA failure 220: uncorrectable NVLink error detected during the execution{PLACE}",
        f"CUDA failure 222: the provided PTX was compiled with an unsupported toolchain.{PLACE}",
        f"CUDA failure 209: no kernel image is available for execution on the device{PLACE}",
        f"CUDA failure 100: no CUDA-capable device is detected{PLACE}",
        f"CUDA failure 46: CUDA-capable device(s) is/are busy or unavailable{PLACE}",
        f"CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version{PLACE}",
        f"CUDA failure 3: initialization error{PLACE}",
        "CUDA error: an illegal memory access was encountered",
        "cudaErrorIllegalAddress",
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        "cudaErrorLaunchFailure",
        "CUDA_ERROR_LAUNCH_FAILED",
        "CUDA_ERROR_LAUNCH_TIMEOUT",
        "cudaErrorNoKernelImageForDevice",
        "CUDA_ERROR_ASSERT",
        "cudaErrorECCUncorrectable",
        f"CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED{PLACE}expr=cublasGemmHelper()",
        f"CUBLAS failure 8: CUBLAS_STATUS_ARCH_MISMATCH{PLACE}",
        f"Non-zero status code returned while running Conv. CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED{PLACE}",
        f"CUDNN failure 6: CUDNN_STATUS_ARCH_MISMATCH{PLACE}",
        "NVRM: Xid (PCI:0000:00:04): 79, GPU has fallen off the bus.",
        "Xid 31",
        "GPU has fallen off the bus",
        "Device lost",
        "the device is lost",
        "GPU is lost. Reboot the system to recover this GPU",
    ],
)
def test_a_text_of_a_lost_device(text: str) -> None:
    error = describe_fault(RuntimeError(text), "model m fails on a batch of (8, 4, 4, 3)")
    assert type(error) is DeviceLostError
    assert str(error).startswith("model m fails on a batch of (8, 4, 4, 3): ")


@pytest.mark.parametrize(
    "code", [3, 35, 46, 100, 209, 214, 220, 222, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 999]
)
def test_a_code_of_a_lost_device(code: int) -> None:
    assert type(describe_fault(RuntimeError(f"CUDA failure {code}: x{PLACE}"), "model m")) is DeviceLostError
    assert type(describe_fault(RuntimeError(f"CUDA failure {code}0: x{PLACE}"), "model m")) is SessionError


@pytest.mark.parametrize(
    "text",
    [
        "initialization error",
        "CUDA driver version is insufficient for CUDA runtime version",
        "CUDA-capable device(s) is/are busy or unavailable",
        "no CUDA-capable device is detected",
        "no kernel image is available for execution on the device",
        "uncorrectable ECC error encountered",
        "uncorrectable NVLink error detected during the execution",
        "the provided PTX was compiled with an unsupported toolchain.",
        "the launch timed out and was terminated",
        "context is destroyed",
        "device-side assert triggered",
        "hardware stack error",
        "an illegal instruction was encountered",
        "misaligned address",
        "operation not supported on global/shared address space",
        "invalid program counter",
        "unspecified launch failure",
    ],
)
def test_the_text_of_cudas_own_error_without_its_code(text: str) -> None:
    assert type(describe_fault(RuntimeError(f"CUDA error: {text}"), "model m")) is DeviceLostError


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        RuntimeError(f"{CALL}CUDA failure 2: out of memory{PLACE}expr=cudaMalloc((void**)&p, size);"),
        RuntimeError(
            "bfc_arena.cc:376 Available memory of 0 is smaller than requested: Failed to allocate memory for x"
        ),
        RuntimeError("std::bad_alloc"),
        RuntimeError("bad allocation"),
        RuntimeError("CUDNN failure 4000: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"),
        # Only a retry with less memory shows which of the two it is.
        RuntimeError("CUDNN_STATUS_EXECUTION_FAILED: Out of memory"),
    ],
)
def test_a_text_of_too_little_memory(error: Exception) -> None:
    assert type(describe_fault(error, "x")) is DeviceMemoryError


@pytest.mark.parametrize(
    "text",
    [
        "CUDA failure 1: invalid argument",
        "CUDA failure 70: x",
        "CUDNN_FE failure 11: CUDNN_BACKEND_API_FAILED",
        "CUDNN failure 3000: CUDNN_STATUS_NOT_SUPPORTED",
        "[ONNXRuntimeError] : 10 : INVALID_GRAPH : Load model from m.onnx failed",
        "Exiting due to terminate flag being set to true.",
    ],
)
def test_any_other_text_is_an_error_of_the_model(text: str) -> None:
    error = describe_fault(ValueError(text), "model m")
    assert type(error) is SessionError and str(error) == f"model m: {text}"


def test_a_text_is_one_line_and_an_error_without_text_is_named() -> None:
    assert shorten(ValueError("a\n  b\tc ")) == "a b c"
    assert shorten(MemoryError()) == "MemoryError"
    assert str(describe_fault(MemoryError(), "model m")) == "model m: MemoryError"


def test_a_long_text_keeps_its_begin_and_its_end() -> None:
    exact = "a" * HEAD + "b" * TAIL
    assert shorten(ValueError(exact)) == exact
    assert shorten(ValueError(f"{exact}c")) == "a" * 100 + " ... " + "b" * 299 + "c"


def test_the_reason_of_a_runtime_that_is_too_old_is_kept() -> None:
    """The text of ONNX Runtime 1.20 for a file of IR version 11, in a bundle as Kaggle mounts it."""
    text = (
        "[ONNXRuntimeError] : 1 : FAIL : Load model from /kaggle/input/datasets/somebody/imet-2019-bundle/culture.onnx "
        "failed:/onnxruntime_src/onnxruntime/core/graph/model.cc:149 onnxruntime::Model::Model(onnx::ModelProto&&, "
        "const onnxruntime::PathString&, const onnxruntime::IOnnxRuntimeOpSchemaRegistryList*, const onnxruntime::"
        "logging::Logger&, const onnxruntime::ModelOptions&) "
        "Unsupported model IR version: 11, max supported IR version: 10"
    )
    assert shorten(RuntimeError(text)).endswith("Unsupported model IR version: 11, max supported IR version: 10")
    cuda = f"{CALL}CUDA failure 700: an illegal memory access was encountered{PLACE}expr=cudaStreamSynchronize(stream);"
    assert "CUDA failure 700: an illegal memory access was encountered" in shorten(RuntimeError(cuda))
