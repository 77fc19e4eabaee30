"""What a kernel is compiled for: the few facts that its launch configuration depends on.

Knows how to ask the driver; knows no kernel. Without a GPU the target is Triton's interpreter or
whatever target the ahead-of-time compiler has made active.
"""

from dataclasses import dataclass
from functools import cache

import torch
from triton import knobs
from triton.runtime import driver

INTERPRETER = "interpreter"
SMS_OF_ARCH = {"cuda80": 108, "cuda90": 132, "cuda100": 148, "gfx942": 304}


@dataclass(frozen=True)
class Target:
    """backend: cuda, hip or interpreter; arch: ten times the compute capability, else 0."""

    backend: str
    arch: int
    num_sms: int

    @property
    def has_large_shared_memory(self) -> bool:
        """Compute capability 9 and 10: 227 KiB a program, matrix units that read it directly."""
        return self.backend == "cuda" and 90 <= self.arch < 120

    @property
    def has_float8(self) -> bool:
        """Whether Triton converts float8_e4m3fn there."""
        return self.backend != "cuda" or self.arch >= 89


def target_of(device: torch.device) -> Target:
    """The target that kernels on tensors of this device run on."""
    if knobs.runtime.interpret:
        return Target(INTERPRETER, 0, 1)
    if device.type == "cuda":
        return _gpu(device.index if device.index is not None else torch.cuda.current_device())
    active = driver.active.get_current_target()
    is_cuda = active.backend == "cuda"
    name = f"cuda{active.arch}" if is_cuda else str(active.arch)
    return Target(active.backend, int(active.arch) if is_cuda else 0, SMS_OF_ARCH.get(name, 132))


@cache
def _gpu(index: int) -> Target:
    properties = torch.cuda.get_device_properties(index)
    if torch.version.hip:
        return Target("hip", 0, properties.multi_processor_count)
    arch = 10 * properties.major + properties.minor
    return Target("cuda", arch, properties.multi_processor_count)
