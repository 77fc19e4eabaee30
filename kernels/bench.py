"""Correctness and speed of every kernel on the device at hand, one JSON line a result.

    python -m kernels.bench --out FILE.jsonl [--family attention] [--check | --time] [--dry-run]

Results are appended as they come, and what the file holds already is not measured again: a run
that was cut off goes on where it stopped. A dry run takes the toy cases, so that every line of it
is tried on a CPU. Exit status 1 if a kernel is wrong; a peer that cannot run is reported and
passed over.
"""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from kernels.measure import Ceilings, measure_ceilings, time_op
from kernels.op import Case, Op
from kernels.registry import FAMILIES, ops
from kernels.testing import check, make_inputs

OURS = "ours"


class Results:
    """A file of JSON lines that is read when opened and appended to from then on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        if text and not text.endswith("\n"):
            # a process that was killed has left half a line
            text = text[: text.rfind("\n") + 1]
            path.write_text(text)
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
        # what failed of ours is tried again
        self._keys = {self._key(row) for row in self.rows if "why" not in row or row["who"] != OURS}

    def has(self, **key: str) -> bool:
        """Whether this has been measured."""
        return self._key(key) in self._keys

    def append(self, row: dict[str, Any]) -> None:
        """Write one result through to the disk."""
        self.rows.append(row)
        self._keys.add(self._key(row))
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    @staticmethod
    def _key(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(row.get(name, "")) for name in ("kind", "op", "case", "who"))


def check_ops(
    selected: tuple[Op, ...], device: torch.device, results: Results, is_dry_run: bool = False
) -> bool:
    """Hold every toy case against its float64 reference; False if any is wrong."""
    all_right = True
    for op, case in _cases(selected, False, is_dry_run):
        if results.has(kind="check", op=str(op), case=str(case), who=OURS):
            continue
        row: dict[str, Any] = {"kind": "check", "op": str(op), "case": str(case), "who": OURS}
        try:
            row["error"] = check(op, case, device)
            row["ok"] = True
        except Exception as error:
            row |= {"ok": False, "why": _one_line(error)}
            traceback.print_exc()
        results.append(row)
        all_right &= row["ok"]
        print(f"check {op} {case}: {row.get('error', row.get('why'))}", flush=True)
    return all_right


def time_ops(
    selected: tuple[Op, ...],
    device: torch.device,
    ceilings: Ceilings,
    results: Results,
    is_dry_run: bool,
) -> bool:
    """Time every benchmark case beside its peers; False if one of ours could not run."""
    # ours first: peers compile for minutes, and a part that is cut off should not lack a goal
    all_ran = _time_all(selected, device, ceilings, results, is_dry_run, is_ours=True)
    if not is_dry_run:
        _time_all(selected, device, ceilings, results, is_dry_run, is_ours=False)
    return all_ran


def _time_all(
    selected: tuple[Op, ...],
    device: torch.device,
    ceilings: Ceilings,
    results: Results,
    is_dry_run: bool,
    is_ours: bool,
) -> bool:
    all_ran = True
    for op, case in _cases(selected, not is_dry_run, is_dry_run):
        inputs: dict[str, Any] | None = None
        for who, run in ({OURS: op.run} if is_ours else op.peers).items():
            if results.has(kind="time", op=str(op), case=str(case), who=who):
                continue
            if inputs is None:
                inputs = make_inputs(op, case, device)
            row = {"kind": "time", "op": str(op), "case": str(case), "who": who}
            try:
                row |= _timed(op, run, inputs, ceilings)
            except Exception as error:
                row["why"] = _one_line(error)
                all_ran &= who != OURS
            results.append(row)
            print(f"time {op} {case} {who}: {row.get('us', row.get('why'))}", flush=True)
        del inputs
        if device.type == "cuda":
            with suppress(RuntimeError):  # after a capture that broke off
                torch.cuda.empty_cache()
    return all_ran


def _timed(op: Op, run: Any, inputs: dict[str, Any], ceilings: Ceilings) -> dict[str, Any]:
    num_bytes, num_flops = op.num_bytes(inputs), op.num_flops(inputs)
    timing = time_op(run, inputs)
    return {
        "us": timing.us,
        "us_min": timing.us_min,
        "us_max": timing.us_max,
        "is_graph": timing.is_graph,
        "bytes": num_bytes,
        "flops": num_flops,
        "gb_per_s": num_bytes / timing.us / 1e3,
        "tflops": num_flops / timing.us / 1e6,
        "share_of_copy": num_bytes / timing.us * 1e6 / ceilings.copy_bytes_per_s,
        "share_of_roofline": ceilings.floor_us(num_bytes, num_flops) / timing.us,
    }


def _cases(selected: tuple[Op, ...], bench: bool, is_dry_run: bool) -> Iterator[tuple[Op, Case]]:
    """What to run; in a dry run one case of each operation, as the tests have run them all."""
    # Triton's interpreter holds bfloat16 as integers and adds them as such.
    is_interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    for op in selected:
        cases = [
            case
            for case in (op.bench_cases if bench else op.cases)
            if not (is_interpreted and case.dtype is torch.bfloat16)
        ]
        for case in cases[:1] if is_dry_run else cases:
            yield op, case


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def main() -> int:
    """Entry point; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--check", action="store_true", help="correctness only")
    parser.add_argument("--time", action="store_true", help="speed only")
    parser.add_argument("--dry-run", action="store_true", help="toy sizes, on any device")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not args.dry_run:
        parser.error("no GPU: a CPU can only do --dry-run (with TRITON_INTERPRET=1)")
    selected, results = ops(args.family), Results(args.out)
    ok = True
    if args.check or not args.time:
        ok &= check_ops(selected, device, results, args.dry_run)
    if args.time or not args.check:
        ceilings = measure_ceilings(device, args.dry_run)
        ok &= time_ops(selected, device, ceilings, results, args.dry_run)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
