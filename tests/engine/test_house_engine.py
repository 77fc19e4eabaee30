"""Our `kernels` package beside Hugging Face's name for another one, and light imports."""

import os
import subprocess
import sys
from pathlib import Path

from tests.engine.checkpoints import make_checkpoint

REPOSITORY = Path(__file__).parents[2]
PROGRAM = """
import sys
import kernels
import engine
assert "torch" not in sys.modules, "importing engine must not import torch"
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
import torch
model(torch.tensor([[1, 2, 3]]))
print(kernels.__file__)
"""


def test_kernels_is_ours_and_transformers_loads_a_model_beside_it(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, has_tokenizer=False)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == REPOSITORY / "kernels" / "__init__.py"
