"""Every operation is listed once, with all that tests and benchmarks need."""

import subprocess
import sys
from pathlib import Path

import pytest

from kernels import registry
from kernels.op import Op

REPOSITORY = Path(__file__).resolve().parents[2]
OPS = registry.ops()


def test_names_are_unique() -> None:
    names = [str(op) for op in OPS]
    assert len(names) == len(set(names))
    assert {op.family for op in OPS} == set(registry.FAMILIES)


@pytest.mark.parametrize("op", OPS, ids=str)
def test_a_record_is_complete(op: Op) -> None:
    assert registry.op(str(op)) is op
    assert op.cases
    assert op.bench_cases
    for cases in (op.cases, op.bench_cases, op.compile_cases):
        names = [str(case) for case in cases]
        assert len(names) == len(set(names))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="no kernel family 'norms'"):
        registry.ops("norms")
    with pytest.raises(ValueError, match=r"no operation 'attention\.nothing'"):
        registry.op("attention.nothing")


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = "import sys, kernels.registry; sys.exit('kernels.attention.ops' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
