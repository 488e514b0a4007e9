"""What this machine's processors can do, as far as a choice of arithmetic depends on it."""

from __future__ import annotations

import platform
from pathlib import Path

from localizer_ros.core.types import BackendError

CPUINFO = Path("/proc/cpuinfo")
# Where there is an NVIDIA GPU: a desktop's devices, and those of a Jetson.
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu")
# Names of the flags of bfloat16 arithmetic: x86 and ARM. Without it, it is emulated: a training step measured up to
# 20 % slower than in float32, a linear layer 2.4 times.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})


def cpu_flags(cpuinfo: Path) -> frozenset[str]:
    """Instruction sets of the CPU, as Linux names them; empty where Linux does not say."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def cpu_name(cpuinfo: Path | None = None) -> str:
    """The CPU's name, or its architecture's where Linux gives no name."""
    try:
        lines = (cpuinfo or CPUINFO).read_text().splitlines()
    except OSError:
        lines = []
    names = [
        value.strip() for key, _, value in (x.partition(":") for x in lines) if key.strip() == "model name"
    ]
    return names[0] if names else platform.machine()


def has_native_bf16(cpuinfo: Path | None = None) -> bool:
    """Whether the CPU computes in bfloat16 itself."""
    return bool(cpu_flags(cpuinfo or CPUINFO) & _BF16_FLAGS)


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU with its driver."""
    return any(Path(device).exists() for device in _GPU_DEVICES)


def require_native_bf16(kind: str) -> None:
    """Raise BackendError where bfloat16 would be emulated."""
    if not has_native_bf16():
        raise BackendError(
            f"{kind}: this processor ({cpu_name()}) has no bfloat16 arithmetic, and emulating it is slower than fp32; "
            "set backend.precision to fp32 or int8"
        )
