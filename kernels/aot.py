"""Compiles what an operation launches for GPUs that are not there, and reads what came out.

    python -m kernels.aot [OP[/CASE][@TARGET] ...]       one JSON line a kernel, all by default

Knows how to stand in for a driver, and how to read PTX, SASS and AMD assembly; knows no kernel. The
operation itself runs on CPU tensors with every launch turned into a compilation, so that what is
compiled is what would be launched, specializations included. Not under TRITON_INTERPRET=1.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from kernels import registry
from kernels.op import Case, Op
from kernels.testing import generator_of

TARGETS = {
    "cuda:80": GPUTarget("cuda", 80, 32),
    "cuda:90": GPUTarget("cuda", 90, 32),
    "cuda:100": GPUTarget("cuda", 100, 32),
    "hip:gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARED_LIMITS = {"cuda:80": 166_912, "cuda:90": 232_448, "cuda:100": 232_448, "hip:gfx942": 65_536}
"""Bytes of shared memory that one program may take."""


@dataclass(frozen=True)
class KernelReport:
    """What the compiler made of one kernel.

    registers: a thread. spills: instructions that store to or load from local memory (AMD: spilled
    registers). shared: bytes a program. hgmma: warp-group matrix instructions. copies_16 and
    copies_small: asynchronous copies to shared memory of 16 bytes a thread, and of fewer.
    buffers: depth of the shallowest multi-buffered tile, 0 without one.
    """

    op: str
    case: str
    kernel: str
    target: str
    num_warps: int
    registers: int
    spills: int
    shared: int
    hgmma: int
    copies_16: int
    copies_small: int
    buffers: int


class AbsentDevice:
    """The part of a Triton driver that compiling needs, for a device that is not there."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        """What to compile for."""
        return self._target

    def get_current_device(self) -> str:
        """Key of Triton's cache of compiled kernels: one a target."""
        return f"{self._target.backend}:{self._target.arch}"

    def get_current_stream(self, device: str) -> int:
        """No stream is ever used."""
        return 0


@contextmanager
def launches_compiled(target: GPUTarget) -> Iterator[list[tuple[str, Any]]]:
    """Launches inside become compilations; yields the growing list of (kernel's name, compiled)."""
    compiled: list[tuple[str, Any]] = []
    original: Callable[..., Any] = JITFunction.run

    def compile_only(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        compiled.append(
            (kernel.__name__, original(kernel, *args, grid=grid, warmup=True, **kwargs))
        )

    driver.set_active(AbsentDevice(target))
    JITFunction.run = compile_only
    try:
        yield compiled
    finally:
        JITFunction.run = original
        driver._active = None


def compile_case(op: Op, case: Case, target: str) -> list[KernelReport]:
    """Every kernel that the operation launches for these inputs, in order."""
    if triton.knobs.runtime.interpret:
        raise RuntimeError(
            "TRITON_INTERPRET=1 has no compiler: unset it before kernels are imported"
        )
    inputs = op.make_inputs(case, torch.device("cpu"), generator_of("cpu"))
    with launches_compiled(TARGETS[target]) as compiled:
        op.run(**inputs)
    read = _read_amd if target.startswith("hip") else _read_nvidia
    return [
        KernelReport(
            op=str(op),
            case=str(case),
            kernel=name,
            target=target,
            num_warps=kernel.metadata.num_warps,
            shared=kernel.metadata.shared,
            buffers=_num_buffers(kernel.asm["ttgir"]),
            **read(kernel.asm),
        )
        for name, kernel in compiled
    ]


def _num_buffers(ttgir: str) -> int:
    """The pipeliner's allocations have the number of buffers before the tile's two dimensions."""
    depths = re.findall(r"ttg\.local_alloc[^:\n]*: \(\) -> !ttg\.memdesc<(\d+)x\d+x\d+x", ttgir)
    return min(map(int, depths), default=0)


def _read_nvidia(asm: Any) -> dict[str, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(asm["cubin"])
        dump = _cuobjdump(file.name)
    copies = re.findall(r"cp\.async\.c[ag]\.shared\.global[^;]*?, 0x([0-9a-f]+)", asm["ptx"])
    sizes = [int(size, 16) for size in copies]
    return {
        "registers": max(map(int, re.findall(r"REG:(\d+)", dump)), default=0),
        "spills": len(re.findall(r"\b(?:STL|LDL)\b", dump)),
        "hgmma": len(re.findall(r"\bHGMMA\b", dump)),
        "copies_16": sum(size == 16 for size in sizes),
        "copies_small": sum(size < 16 for size in sizes),
    }


def _cuobjdump(path: str) -> str:
    """Resources, then instructions."""
    command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", "-sass", path]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _read_amd(asm: Any) -> dict[str, int]:
    text = asm["amdgcn"]

    def number(name: str) -> int:
        return sum(map(int, re.findall(rf"\.{name}:\s*(\d+)", text)))

    return {
        "registers": number("vgpr_count"),
        "spills": number("vgpr_spill_count"),
        "hgmma": 0,
        "copies_16": 0,
        "copies_small": 0,
    }


def main() -> int:
    """Entry point; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("selection", nargs="*", help="such as attention.paged_decode/gqa@cuda:90")
    args = parser.parse_args()
    for selection in args.selection or map(str, registry.ops()):
        for op, case, target in _selected(selection):
            _print_reports(op, case, target)
    return 0


def _selected(selection: str) -> Iterator[tuple[Op, Case, str]]:
    names, _, target = selection.partition("@")
    op_name, _, case_name = names.partition("/")
    if target and target not in TARGETS:
        raise SystemExit(f"no target {target!r}: choose one of {', '.join(TARGETS)}")
    op = registry.op(op_name)
    cases = [case for case in op.compile_cases if case_name in ("", case.name)]
    if not cases:
        known = ", ".join(case.name for case in op.compile_cases)
        raise SystemExit(f"{op} has no compile case {case_name!r}: choose one of {known}")
    for case in cases:
        for name in [target] if target else TARGETS:
            yield op, case, name


def _print_reports(op: Op, case: Case, target: str) -> None:
    """A case that an architecture does not take is reported with the reason."""
    try:
        rows = [asdict(report) for report in compile_case(op, case, target)]
    except ValueError as error:
        rows = [{"op": str(op), "case": str(case), "target": target, "refused": str(error)}]
    for row in rows:
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    sys.exit(main())
