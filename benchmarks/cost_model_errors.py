"""How far the analytic cost model is from tables of measured times, whole steps compared.

    python benchmarks/cost_model_errors.py PROFILES > benchmarks/cost_model_errors.csv

PROFILES holds `layerwise/<GPU>/<model>` and `kernels/<system>` (docs/cost_models.md). Shapes lie
inside the tables. The constants of the analytic model were fitted on the same tables.
"""

import csv
import sys
from pathlib import Path
from statistics import fmean, quantiles

from experiments.assemble import Assembly
from experiments.run import compose_config
from simulator.cost_models.base import CostModel
from workbench.step_profile import StepShape

CASES = (
    ("rtx4090", "llama3_8b", "layerwise", "layerwise/RTX4090/meta-llama/Llama-3.1-8B"),
    ("rtx_pro_6000", "llama3_8b", "layerwise", "layerwise/RTXPRO6000/meta-llama/Llama-3.1-8B"),
    ("rtx_pro_6000", "qwen3_32b", "layerwise", "layerwise/RTXPRO6000/Qwen/Qwen3-32B"),
    (
        "rtx_pro_6000",
        "qwen3_30b_a3b",
        "layerwise",
        "layerwise/RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507",
    ),
    ("rtx_pro_6000", "llama3_8b", "kernel_tables", "kernels/rtx_pro_6000_server"),
    ("a100", "llama3_8b", "kernel_tables", "kernels/a100_sxm"),
    ("h100", "llama3_8b", "kernel_tables", "kernels/h100_sxm"),
)
CONTEXTS = (256, 1024, 4096)


def shapes() -> dict[str, list[StepShape]]:
    """Steps of nothing but decodes, of one prompt chunk, and of both."""
    batches = [(rows, rows * c) for rows in (1, 4, 16, 64, 128) for c in CONTEXTS]
    chunks = [(q, c) for q in (128, 256, 512, 1024, 2048) for c in (0, 1024, 4096)]
    decode = [StepShape(n, tokens, [], n) for n, tokens in batches]
    prefill = [StepShape(0, 0, [chunk], 1) for chunk in chunks]
    mixed = [StepShape(n, k, [(q, 0)], n + 1) for n, k in batches for q in (256, 1024)]
    return {"decode": decode, "prefill": prefill, "mixed": mixed}


def build(hardware: str, model: str, cost_model: str, path: Path | None) -> CostModel:
    """A cost model from the project's configs, without the host's share."""
    overrides = [f"hardware={hardware}", f"model={model}", f"cost_model={cost_model}"]
    overrides.append("cost_model.host_overhead_s=0")
    if path is not None:
        overrides.append(f"cost_model.path={path}")
    built: CostModel = Assembly.from_config(compose_config(overrides)).cost_model
    return built


def main() -> None:
    root = Path(sys.argv[1])
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(("hardware", "model", "table", "steps", "kind", "mean_error_%", "p90_error_%"))
    for hardware, model, kind, path in CASES:
        formula = build(hardware, model, "roofline", None)
        table = build(hardware, model, kind, root / path)
        for name, steps in shapes().items():
            ratios = [formula.step_time(s) / table.step_time(s) for s in steps]
            errors = [abs(r - 1) * 100 for r in ratios]
            p90 = quantiles(errors, n=10)[-1]
            row = (hardware, model, kind, len(steps), name, f"{fmean(errors):.1f}", f"{p90:.1f}")
            out.writerow(row)


if __name__ == "__main__":
    main()
