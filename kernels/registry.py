"""All operations, found family by family.

Knows the names of the families; each lists its operations as `OPS` in `kernels/<family>/ops.py`.
Nothing is imported before it is asked for.
"""

from importlib import import_module

from kernels.op import Op

FAMILIES = ("attention", "kv_cache", "sampling", "moe")


def ops(family: str | None = None) -> tuple[Op, ...]:
    """Every operation, or those of one family."""
    if family is not None and family not in FAMILIES:
        raise ValueError(f"no kernel family {family!r}: choose one of {', '.join(FAMILIES)}")
    families = FAMILIES if family is None else (family,)
    return tuple(op for name in families for op in import_module(f"kernels.{name}.ops").OPS)


def op(name: str) -> Op:
    """The operation called `family.name`, or `name` in any family."""
    family, _, short = name.rpartition(".")
    candidates = ops(family or None)
    for candidate in candidates:
        if candidate.name == short:
            return candidate
    raise ValueError(f"no operation {name!r}: choose one of {', '.join(map(str, candidates))}")
