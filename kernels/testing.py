"""Holds an operation against its float64 reference.

Knows how errors are measured and that whatever an operation should write is poisoned first;
knows no kernel. Runs on any device: on a CPU through Triton's interpreter, on a GPU as compiled.
"""

from typing import Any

import torch

from kernels.op import Case, Inputs, Op, Result


def generator_of(device: torch.device | str, seed: int = 0) -> torch.Generator:
    """A seeded stream of random numbers that lives on `device`."""
    return torch.Generator(device=device).manual_seed(seed)


def make_inputs(op: Op, case: Case, device: torch.device | str = "cpu", seed: int = 0) -> Inputs:
    """Inputs of a case with every buffer poisoned."""
    inputs = op.make_inputs(case, torch.device(device), generator_of(device, seed))
    for name in op.buffers:
        if inputs.get(name) is not None:
            poison(inputs[name])
    return inputs


def poison(tensor: torch.Tensor) -> torch.Tensor:
    """Fill a tensor with what no result may hold: NaN, or the smallest integer."""
    if tensor.is_floating_point():
        return tensor.fill_(float("nan"))
    if tensor.dtype == torch.bool:
        return tensor.fill_(True)
    return tensor.fill_(torch.iinfo(tensor.dtype).min)


def clone(inputs: Inputs) -> Inputs:
    """The same inputs in other memory (strides kept), so that one run cannot help another."""
    return {name: _clone(value) for name, value in inputs.items()}


def _clone(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone(memory_format=torch.preserve_format)
    if isinstance(value, (tuple, list)):
        return type(value)(_clone(part) for part in value)
    return value


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """max |actual - expected| over max |expected|, in float64.

    Infinities must stand at the same places with the same sign, and NaN nowhere but where the
    reference has it: else the error is infinite. Where the reference is zero everywhere, the
    error is absolute.
    """
    if actual.shape != expected.shape:
        raise AssertionError(f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}")
    actual, expected = actual.double(), expected.double()
    special = ~torch.isfinite(expected)
    if not torch.equal(special, ~torch.isfinite(actual)):
        return float("inf")
    if not torch.allclose(actual[special], expected[special], equal_nan=True):
        return float("inf")
    actual, expected = actual[~special], expected[~special]
    if expected.numel() == 0:
        return 0.0
    error, size = (actual - expected).abs().max().item(), expected.abs().max().item()
    return error / size if size > 0.0 else error


def compare(op: Op, case: Case, actual: Result, expected: Result) -> float:
    """The largest relative error; raises AssertionError beyond the operation's tolerance."""
    actuals = (actual,) if isinstance(actual, torch.Tensor) else tuple(actual)
    expecteds = (expected,) if isinstance(expected, torch.Tensor) else tuple(expected)
    if len(actuals) != len(expecteds):
        raise AssertionError(f"{op} {case}: {len(actuals)} results, expected {len(expecteds)}")
    worst = 0.0
    for index, (got, wanted) in enumerate(zip(actuals, expecteds, strict=True)):
        limit = op.tolerance.get(case.dtype, 0.0) if got.is_floating_point() else 0.0
        error = relative_error(got, wanted)
        if not error <= limit:
            raise AssertionError(f"{op} {case}: result {index} has error {error:.2e} > {limit:.2e}")
        worst = max(worst, error)
    return worst


def check(op: Op, case: Case, device: torch.device | str = "cpu", seed: int = 0) -> float:
    """Run one case and its reference on the same inputs; returns the largest relative error.

    Raises AssertionError if any result differs by more than the operation's tolerance or holds a
    poisoned element.
    """
    inputs = make_inputs(op, case, device, seed)
    expected = op.reference(**clone(inputs))
    return compare(op, case, op.run(**clone(inputs)), expected)
