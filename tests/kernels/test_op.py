"""Records of operations, and the check that holds one against its reference."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from kernels.op import Case, Inputs, Op, tensor_bytes, with_inductor
from kernels.testing import check, clone, make_inputs, poison, relative_error

NAN, INF = float("nan"), float("inf")


def _make_inputs(case: Case, device: torch.device, generator: torch.Generator) -> Inputs:
    x = torch.randn(case["n"], dtype=case.dtype, device=device, generator=generator)
    return {"x": x, "out": torch.empty_like(x)}


def _double(x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    return torch.add(x, x, out=out)


def _forget_the_last(x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    out[:-1] = 2 * x[:-1]
    return out


def _reference(x: torch.Tensor, **kernel_only: Any) -> torch.Tensor:
    return 2 * x.double()


DOUBLE = Op(
    name="double",
    family="test",
    run=_double,
    reference=_reference,
    make_inputs=_make_inputs,
    num_bytes=lambda inputs: tensor_bytes(inputs["x"], inputs["out"]),
    cases=(Case("eight", torch.float32, {"n": 8}), Case("eight", torch.bfloat16, {"n": 8})),
    tolerance={torch.float32: 1e-6},
    buffers=("out",),
)


def test_a_right_operation_passes_and_its_error_is_returned() -> None:
    assert [check(DOUBLE, case) for case in DOUBLE.cases] == [0.0, 0.0]


def test_an_element_that_is_never_written_is_found() -> None:
    with pytest.raises(AssertionError, match=r"test\.double eight-float32: result 0 has error inf"):
        check(replace(DOUBLE, run=_forget_the_last), DOUBLE.cases[0])


def test_cases_are_found_by_name_and_unknown_ones_named() -> None:
    assert DOUBLE.case("eight-bfloat16") is DOUBLE.cases[1]
    assert DOUBLE.case("eight").get("missing", 3) == 3
    with pytest.raises(ValueError, match=r"test\.double has no case 'nine'"):
        DOUBLE.case("nine")


def test_bytes_count_what_is_read_and_written() -> None:
    inputs = make_inputs(DOUBLE, DOUBLE.cases[1])
    assert DOUBLE.num_bytes(inputs) == 2 * 8 * 2
    assert DOUBLE.num_flops(inputs) == 0


def test_the_same_seed_gives_the_same_inputs() -> None:
    first, second = (make_inputs(DOUBLE, DOUBLE.cases[0], seed=1) for _ in range(2))
    assert torch.equal(first["x"], second["x"])
    assert torch.isnan(first["out"]).all()


def test_clones_share_no_memory_and_keep_strides() -> None:
    tensor = torch.zeros(3, 4).T
    copies = clone({"a": tensor, "b": (tensor, 5), "c": "text"})
    copies["a"].fill_(1.0)
    assert tensor.sum() == 0.0
    assert copies["a"].stride() == tensor.stride()
    assert copies["b"][1:] == (5,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.bool])
def test_poison_covers_every_element(dtype: torch.dtype) -> None:
    poisoned = poison(torch.zeros(4, dtype=dtype))
    assert poisoned.isnan().all() if dtype.is_floating_point else (poisoned != 0).all()


@pytest.mark.parametrize(
    ("actual", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 3.0], [1.0, 2.0], 0.5),
        ([0.0, 0.1], [0.0, 0.0], 0.1),
        ([-INF, 1.0], [-INF, 1.0], 0.0),
        ([INF, 1.0], [-INF, 1.0], INF),
        ([NAN, 1.0], [0.0, 1.0], INF),
        ([0.0, 1.0], [NAN, 1.0], INF),
        ([NAN, 1.0], [NAN, 1.0], 0.0),
        ([], [], 0.0),
    ],
)
def test_relative_error(actual: list[float], expected: list[float], error: float) -> None:
    tensors = (torch.tensor(values, dtype=torch.float64) for values in (actual, expected))
    assert relative_error(*tensors) == pytest.approx(error)


def test_inductor_compiles_a_peer_once_and_at_its_first_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled = []

    def compile_(run: Any, dynamic: bool) -> Any:
        compiled.append(run)
        return run

    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    monkeypatch.setattr(torch, "compile", compile_)
    peers = with_inductor({"torch": double})
    assert list(peers) == ["torch", "inductor"]
    assert not compiled
    for _ in range(2):
        assert peers["inductor"](x=torch.ones(1)).item() == 2.0
    assert compiled == [double]
