"""One record a kernel operation: what tests, benchmarks, roofline and compiler gates read.

Knows the shape of such a record and nothing of any kernel: a family fills it in its `ops.py`,
beside its kernels and its float64 reference.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

Inputs = dict[str, Any]
"""Keyword arguments of `Op.run`, `Op.reference` and of every peer."""

Result = torch.Tensor | tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Case:
    """One point of an operation's input space.

    `shape` holds what the family's `make_inputs` reads: plain ints, floats, bools, strings, tuples.
    """

    name: str
    dtype: torch.dtype = torch.bfloat16
    shape: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        return self.shape[key]

    def get(self, key: str, default: Any = None) -> Any:
        return self.shape.get(key, default)

    def __str__(self) -> str:
        return f"{self.name}-{str(self.dtype).removeprefix('torch.')}"


def _never(inputs: Inputs) -> int:
    return 0


@dataclass(frozen=True)
class Op:
    """A kernel operation beside its reference, its inputs and its price.

    run: the operation itself, called as run(**inputs). What it returns is compared; an operation
        that works in place returns the tensors it changed.
    reference: the same arguments, float64, slow and obviously right. It may be called with inputs
        whose `buffers` hold NaN and must not read them. Its result has the structure of run's.
    make_inputs: (case, device, generator) -> keyword arguments. `generator` lives on `device`.
        Slots that nothing may read are filled with NaN here.
    num_bytes: bytes that must cross device memory at least once (each input byte read once, each
        output byte written once): the floor of the roofline.
    num_flops: multiplications and additions that the result needs, masked-out work not counted.
    cases: toy sizes for the interpreter and CI. bench_cases: what a GPU is measured with.
    compile_cases: small inputs with real head sizes, types and page sizes: what the ahead-of-time
        compiler sees. They are made on the CPU and never run.
    tolerance: largest relative error (see testing.relative_error) by dtype of the case. A dtype
        that is not listed is compared exactly.
    buffers: names of arguments that `run` must overwrite entirely; a check fills them with NaN.
    peers: other implementations by name, called as peer(**inputs); only ever run on a GPU. A peer
        that does less work than the operation says so in its docstring.
    """

    name: str
    family: str
    run: Callable[..., Result]
    reference: Callable[..., Result]
    make_inputs: Callable[[Case, torch.device, torch.Generator], Inputs]
    num_bytes: Callable[[Inputs], int]
    num_flops: Callable[[Inputs], int] = _never
    cases: tuple[Case, ...] = ()
    bench_cases: tuple[Case, ...] = ()
    compile_cases: tuple[Case, ...] = ()
    tolerance: Mapping[torch.dtype, float] = field(default_factory=dict)
    buffers: tuple[str, ...] = ()
    peers: Mapping[str, Callable[..., Result]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.family}.{self.name}"

    def case(self, name: str) -> Case:
        """The case of that name, toy or benchmark."""
        for case in (*self.cases, *self.bench_cases, *self.compile_cases):
            if name in (case.name, str(case)):
                return case
        raise ValueError(
            f"{self} has no case {name!r}: choose one of {[str(c) for c in self.cases]}"
        )


def with_inductor(peers: Mapping[str, Callable[..., Result]]) -> dict[str, Callable[..., Result]]:
    """Peers in eager torch (named "torch …"), and each of them compiled ("inductor …")."""
    compiled = {name.replace("torch", "inductor"): _inductor(run) for name, run in peers.items()}
    return {**peers, **compiled}


def _inductor(run: Callable[..., Result]) -> Callable[..., Result]:
    """The same compiled for each shape by torch's Inductor, at the first call."""

    @cache
    def compiled() -> Callable[..., Result]:
        return torch.compile(run, dynamic=False)

    def peer(**inputs: Any) -> Result:
        return compiled()(**inputs)

    return peer


def tensor_bytes(*tensors: torch.Tensor) -> int:
    """Bytes that these tensors hold, each element counted once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
