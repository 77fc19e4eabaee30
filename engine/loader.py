"""A model with its weights, from a checkpoint or at random.

Knows the order of things: everything that can be refused is refused before memory is taken. Does
not know architectures (the registry does) nor file formats (the checkpoint does).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from engine.checkpoint import Checkpoint
from engine.dummy_weights import fill_randomly
from engine.errors import ModelLoadError, OutOfMemoryError
from engine.layers.linear import Linear
from engine.layers.moe import SparseMoe
from engine.layers.packed_weight import is_native
from engine.layers.weights import Placement
from engine.models.causal_lm import CausalLM
from engine.models.registry import model_class
from workbench.errors import ConfigError, WorkbenchError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "half": torch.float16,
    "float32": torch.float32,
    "float": torch.float32,
}
LOAD_FORMATS = ("auto", "safetensors", "dummy")
GIB = 1 << 30


def load_model(
    hf_config: "PretrainedConfig",
    path: str | Path | None,
    load_format: str = "auto",
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "cpu",
    seed: int = 0,
    adapts_to_cpu: bool = True,
) -> CausalLM:
    """Build the model of a config and fill its parameters.

    Args:
        hf_config: from `read_hf_config`.
        path: the checkpoint folder; not needed for dummy weights.
        load_format: "auto" and "safetensors" read the folder, "dummy" draws random weights.
        dtype: of the parameters; "auto" is that of the config, float32 where it names none.
        device: where the parameters live.
        seed: of dummy weights.
        adapts_to_cpu: whether a CPU may hold the weights as it multiplies them fastest, packed and
            wider (see `_plan`); False keeps them readable, in `dtype`.

    Returns:
        The model in evaluation mode, without gradients.

    Raises:
        ModelLoadError: the checkpoint cannot be read or is not of this config.
        OutOfMemoryError: the parameters do not fit on the device.
        ConfigError: a load format or dtype that does not exist.
    """
    _check_load_format(load_format)
    stored = Placement(resolve_dtype(hf_config, dtype), torch.device(device))
    plan, placement = _plan(hf_config, stored, adapts_to_cpu)
    checkpoint = None if load_format == "dummy" else _open(path, plan)
    _check_memory(plan.num_bytes(), placement.device)
    with _memory_told(plan.num_bytes(), placement.device):
        model = _build(hf_config, placement, checkpoint, seed, stored.dtype)
        if adapts_to_cpu:
            _finalize(model)
    return model.eval()


def resolve_dtype(hf_config: "PretrainedConfig", dtype: str | torch.dtype) -> torch.dtype:
    """The torch dtype that `dtype` means; "auto" is the config's, float32 where it names none.

    Raises:
        ConfigError: not one of float32, float16, bfloat16.
    """
    if dtype == "auto":
        dtype = hf_config.dtype or torch.float32
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ConfigError(f"dtype {name!r} is not supported: choose one of {', '.join(DTYPES)}")
    return DTYPES[name]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory ran out, on a device or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def available_bytes(device: torch.device) -> int | None:
    """Bytes that can still be allocated on the device; None where nobody knows."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [_meminfo_available(), _container_limit()]
    return min((limit for limit in limits if limit is not None), default=None)


def _meminfo_available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kibibytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable")), None)
    return None if kibibytes is None else int(kibibytes) << 10


def _container_limit() -> int | None:
    # a container that outgrows its limit is killed without a word
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(limit) if limit.isdigit() else None


def _check_load_format(load_format: str) -> None:
    if load_format not in LOAD_FORMATS:
        raise ConfigError(
            f"load_format {load_format!r} is unknown: choose one of {', '.join(LOAD_FORMATS)}"
        )


def _plan(
    hf_config: "PretrainedConfig", stored: Placement, adapts_to_cpu: bool
) -> tuple[CausalLM, Placement]:
    """The model without memory, and where and how its parameters will be held.

    A CPU that does not multiply 16-bit floats in hardware computes a 16-bit model in float32: its
    weights are the same 16-bit values, held in twice the memory, and everything between them is
    rounded less often. Where the wider weights do not fit, the model stays as it is. Tied
    embeddings become two tensors, the table and its packed copy.
    """
    plan = _without_memory(hf_config, stored.dtype)
    if not (adapts_to_cpu and _widens(plan, stored)):
        return plan, stored
    return _without_memory(hf_config, torch.float32), replace(stored, dtype=torch.float32)


def _without_memory(hf_config: "PretrainedConfig", dtype: torch.dtype) -> CausalLM:
    """The model on the meta device; refuses a config that no model can be made of."""
    try:
        return model_class(hf_config)(hf_config, Placement(dtype, torch.device("meta")))
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        if isinstance(error, WorkbenchError):
            raise
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ModelLoadError(
            f"config.json does not describe a model ({reason}): correct it"
        ) from error


def _build(
    hf_config: "PretrainedConfig",
    placement: Placement,
    checkpoint: Checkpoint | None,
    seed: int,
    stored: torch.dtype,
) -> CausalLM:
    """The model with the values of the checkpoint, or random ones, as `stored` has them."""
    model = model_class(hf_config)(hf_config, placement)
    if checkpoint is None:
        fill_randomly(model, seed)
    else:
        checkpoint.copy_into(model.destinations())
    if placement.dtype != stored:
        _round(model, stored)
    return model


def _open(path: str | Path | None, plan: CausalLM) -> Checkpoint:
    if path is None:
        raise ModelLoadError(
            "no checkpoint folder is named: give its path, or use load_format='dummy' for random "
            "weights"
        )
    checkpoint = Checkpoint(Path(path))
    checkpoint.check(plan.destinations(), plan.tie_word_embeddings)
    return checkpoint


def _widens(plan: CausalLM, placement: Placement) -> bool:
    """Whether to hold 16-bit weights in float32."""
    if is_native(placement.dtype, placement.device):
        return False
    available = available_bytes(placement.device)
    return available is None or 2 * plan.num_bytes() < available


def _round(model: CausalLM, dtype: torch.dtype) -> None:
    """Round the values of all parameters to those that `dtype` has, one parameter at a time."""
    for parameter in model.parameters():
        parameter.copy_(parameter.to(dtype))


def _check_memory(needed: int, device: torch.device) -> None:
    available = available_bytes(device)
    if available is not None and needed > available:
        raise _out_of_memory(needed, device)


@contextmanager
def _memory_told(needed: int, device: torch.device) -> Iterator[None]:
    """Make what torch says when memory runs out one line."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise _out_of_memory(needed, device) from error
        raise


def _out_of_memory(needed: int, device: torch.device) -> OutOfMemoryError:
    available = available_bytes(device)
    free = "" if available is None else f", {available / GIB:.1f} GiB are free"
    return OutOfMemoryError(
        f"the model's weights need {needed / GIB:.1f} GiB on {device}{free}: choose a smaller "
        "model or dtype, or free memory"
    )


def _finalize(model: CausalLM) -> None:
    for module in model.modules():
        if isinstance(module, Linear | SparseMoe):
            module.finalize()
