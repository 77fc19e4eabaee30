"""The ahead-of-time compiler's reports, and the gates that hold for every operation.

What only attention must reach (wgmma, copies, buffers) is tested beside it.
"""

from typing import Any

import pytest

from kernels import registry
from kernels.aot import SHARED_LIMITS, TARGETS, compile_case, main
from kernels.attention.ops import MERGE_STATES
from tests.kernels.compiled import reports

ELSEWHERE = [op for op in registry.ops() if op.family != "attention" and op.compile_cases]

Reports = list[dict[str, Any]]


@pytest.fixture(scope="module")
def compiled() -> Reports:
    """The first compile case of every operation but attention, on two makers' GPUs."""
    names = [f"{op}/{op.compile_cases[0].name}" for op in ELSEWHERE]
    return reports([f"{name}@{target}" for name in names for target in ("cuda:90", "hip:gfx942")])


def test_every_operation_compiles_and_fits(compiled: Reports) -> None:
    expected = {(str(op), target) for op in ELSEWHERE for target in ("cuda:90", "hip:gfx942")}
    assert {(row["op"], row["target"]) for row in compiled} == expected
    for row in compiled:
        assert row["shared"] <= SHARED_LIMITS[row["target"]], row
        assert row["registers"] > 0, row


def test_nothing_spills_on_hopper(compiled: Reports) -> None:
    spilled = [row for row in compiled if row["spills"] and row["target"] == "cuda:90"]
    assert spilled == []


def test_what_an_architecture_does_not_take_is_reported_with_the_reason() -> None:
    (row,) = reports(["attention.paged_decode/fp8@cuda:80"])
    assert "needs compute capability 8.9" in row["refused"]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ("attention.merge_states@cuda:70", "no target 'cuda:70': choose one of cuda:80"),
        ("attention.merge_states/other", "has no compile case 'other': choose one of 128"),
    ],
)
def test_an_unknown_selection_is_refused(
    monkeypatch: pytest.MonkeyPatch, selection: str, message: str
) -> None:
    monkeypatch.setattr("sys.argv", ["aot", selection])
    with pytest.raises(SystemExit, match=message):
        main()


def test_the_interpreter_has_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triton.knobs.runtime.interpret", True)
    with pytest.raises(RuntimeError, match="unset it before kernels are imported"):
        compile_case(MERGE_STATES, MERGE_STATES.compile_cases[0], "cuda:90")


def test_every_target_has_a_limit_of_shared_memory() -> None:
    assert TARGETS.keys() == SHARED_LIMITS.keys()
