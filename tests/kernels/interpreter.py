"""Makes Triton's interpreter compute bfloat16 and float8 by value.

The interpreter keeps these types as the integers of their bits, so that sums, products and dots of
them are wrong, and it truncates where a GPU rounds. Here a tensor of such a type is an array of
float32 whose every element the type can hold: read from bits, rounded to nearest even after each
operation, written as bits. What a GPU does not warn about (NaN, overflow) is silent here too.
Only tests use this; it knows the insides of Triton 3.6 and 3.7.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

NARROW = {
    tl.bfloat16: (torch.bfloat16, np.int16),
    tl.float8e4nv: (torch.float8_e4m3fn, np.int8),
    tl.float8e5: (torch.float8_e5m2, np.int8),
}
LARGEST = {tl.float8e4nv: 448.0, tl.float8e5: 57344.0}


def from_bits(bits: np.ndarray, dtype: Any) -> np.ndarray:
    """The values, as float32, of the bit patterns of a narrow type."""
    torch_dtype, int_dtype = NARROW[dtype]
    bits = np.array(bits, copy=True, order="C").view(int_dtype)
    return torch.from_numpy(bits).view(torch_dtype).float().numpy()


def to_bits(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Round to nearest even; float8 saturates, as the conversion of NVIDIA and AMD GPUs does."""
    torch_dtype, int_dtype = NARROW[dtype]
    values = np.array(values, dtype=np.float32, copy=True, order="C")
    if dtype in LARGEST:
        values = np.clip(values, -LARGEST[dtype], LARGEST[dtype])
    bits = torch.from_numpy(values).to(torch_dtype)
    return bits.view(torch.int16 if int_dtype is np.int16 else torch.int8).numpy()


def rounded(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Values as they are after being held in `dtype`; other types pass."""
    if dtype not in NARROW or values.dtype == np.bool_:
        return values
    return from_bits(to_bits(values, dtype), dtype)


class ByValue:
    """The methods of the interpreter's builder that must know the narrow types."""

    def create_masked_load(
        self, ptrs: Any, mask: Any, other: Any, cache: Any, eviction: Any, is_volatile: Any
    ) -> Any:
        dtype = ptrs.get_element_ty()
        if dtype not in NARROW:
            return ORIGINAL["create_masked_load"](
                self, ptrs, mask, other, cache, eviction, is_volatile
            )
        fill = np.zeros(ptrs.data.shape, np.float32) if other is None else other.data
        unsigned = np.dtype(f"uint{dtype.primitive_bitwidth}")
        bits = to_bits(np.broadcast_to(fill, ptrs.data.shape), dtype).view(unsigned)
        bits = interpreter._interpreter.load(ptrs.data, mask.data, bits, unsigned)
        return interpreter.TensorHandle(from_bits(bits, dtype), dtype)

    def create_masked_store(self, ptrs: Any, value: Any, mask: Any, cache: Any, evict: Any) -> Any:
        dtype = ptrs.get_element_ty()
        data = value.data
        if dtype in NARROW:
            data = to_bits(data, dtype).view(np.dtype(f"uint{dtype.primitive_bitwidth}"))
        return interpreter._interpreter.store(ptrs.data, data, mask.data)

    def cast_impl(self, src: Any, dst_type: Any) -> Any:
        dtype = dst_type.scalar
        data = src.data.astype(interpreter._get_np_dtype(dst_type))
        return interpreter.TensorHandle(rounded(data, dtype), dtype)

    def create_fp_to_fp(self, src: Any, dst_type: Any, rounding_mode: Any) -> Any:
        return ByValue.cast_impl(self, src, dst_type)

    def create_bitcast(self, src: Any, dst_type: Any) -> Any:
        source, dtype = src.dtype.scalar, dst_type.scalar
        data = to_bits(src.data, source) if source in NARROW else src.data
        if dtype in NARROW:
            return interpreter.TensorHandle(from_bits(data, dtype), dtype)
        return interpreter.TensorHandle(data.view(interpreter._get_np_dtype(dst_type)), dtype)

    def binary_op(self, lhs: Any, rhs: Any, op: Callable[..., Any]) -> Any:
        handle = ORIGINAL["binary_op"](self, lhs, rhs, op)
        handle.data = rounded(handle.data, handle.dtype)
        return handle

    def unary_op(self, arg: Any, op: Callable[..., Any]) -> Any:
        dtype = arg.dtype.scalar
        return interpreter.TensorHandle(rounded(op(arg.data), dtype), dtype)

    def create_fma(self, x: Any, y: Any, z: Any) -> Any:
        dtype = z.dtype.scalar
        return interpreter.TensorHandle(rounded(x.data * y.data + z.data, dtype), dtype)

    def create_fabs(self, arg: Any) -> Any:
        return interpreter.TensorHandle(np.abs(arg.data), arg.dtype.scalar)

    def create_dot(self, a: Any, b: Any, d: Any, precision: Any, imprecise: Any) -> Any:
        product = np.matmul(a.data, b.data, dtype=d.data.dtype) + d.data
        return interpreter.TensorHandle(product, d.dtype.scalar)

    def get_bf16(self, value: float) -> Any:
        data = rounded(np.array([value], np.float32), tl.bfloat16)
        return interpreter.TensorHandle(data, tl.bfloat16)


METHODS = [name for name in vars(ByValue) if not name.startswith("_")]
ORIGINAL = {name: vars(interpreter.InterpreterBuilder).get(name) for name in METHODS}


def _np_dtype(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_np_dtype(tt_dtype: Any) -> Any:
        element = tt_dtype.element_ty if isinstance(tt_dtype, tl.block_type) else tt_dtype
        if not isinstance(element, tl.pointer_type) and element in NARROW:
            return np.dtype(np.float32)
        return original(tt_dtype)

    return get_np_dtype


def _fits(original: Callable[..., Any]) -> Callable[..., Any]:
    def validate(array: np.ndarray, dtype: Any) -> bool:
        scalar = getattr(dtype, "scalar", dtype)
        if not isinstance(dtype, tl.pointer_type) and scalar in NARROW:
            return array.dtype in (np.float32, np.bool_)
        return original(array, dtype)

    return validate


def _index(original: Callable[..., Any]) -> Callable[..., Any]:
    """Triton 3.6 takes int() of an array with one element, which NumPy 2.4 refuses."""

    def patch(tensor: Any, scope: Any) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))

    return patch


class PatchedOnce:
    """Device functions patch the language at each call; once per launch and module is enough."""

    def __init__(self) -> None:
        self._patched: set[str] = set()

    def launch(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """A launch, with what a GPU does not warn of kept silent."""

        def run(executor: Any, *args: Any, **kwargs: Any) -> Any:
            self._patched.clear()
            with np.errstate(all="ignore"):
                return original(executor, *args, **kwargs)

        return run

    def call(self) -> Callable[..., Any]:
        """A call of one device function by another."""

        def run(function: Any, *args: Any, **kwargs: Any) -> Any:
            if function.fn.__module__ not in self._patched:
                interpreter._patch_lang(function.fn)
                self._patched.add(function.fn.__module__)
            return function.rewrite()(*args, **kwargs)

        return run


def install(monkeypatch: Any) -> None:
    """Patch the interpreter until `monkeypatch` (pytest's) undoes it."""
    for name in METHODS:
        monkeypatch.setattr(
            interpreter.InterpreterBuilder, name, vars(ByValue)[name], raising=False
        )
    replaced = {"_get_np_dtype": _np_dtype, "_validate_np_data_size": _fits}
    replaced["_patch_lang_tensor"] = _index
    for name, wrap in replaced.items():
        monkeypatch.setattr(interpreter, name, wrap(getattr(interpreter, name)))
    executor, once = interpreter.GridExecutor, PatchedOnce()
    monkeypatch.setattr(executor, "__call__", once.launch(executor.__call__))
    monkeypatch.setattr(interpreter.InterpretedFunction, "__call__", once.call())
