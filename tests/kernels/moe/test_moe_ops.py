"""Every toy case of every operation of mixtures of experts against float64."""

import pytest
import torch

from kernels.moe.ops import OPS
from kernels.op import Case, Op
from kernels.testing import check

CASES = [(op, case) for op in OPS for case in op.cases]


@pytest.mark.parametrize(("op", "case"), CASES, ids=[f"{op.name}-{case}" for op, case in CASES])
def test_equals_the_reference(op: Op, case: Case, device: torch.device) -> None:
    check(op, case, device)
