"""Length tables made of a trace, small enough to ship, and the distributions they stand for.

A table holds the quantiles of the prompt lengths and, for ranges of prompts with about equal
numbers of requests, the quantiles of the output lengths: so the dependence of the two is kept.
`python -m workbench.workload.quantile_tables TRACE.csv --date YYYY-MM-DD --out FILE` computes the
shipped one, `data/azure_conv_2023.json`, from the Azure conversation trace.
"""

import argparse
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import WorkloadError
from workbench.workload.azure import AzureTrace
from workbench.workload.lengths import ConditionalQuantileLengths, QuantileLengths

NUM_PROMPT_RANGES = 20
# even steps of half a percent, finer in the tails, where a straight line would lie above the data
PROMPT_LEVELS = np.unique(
    np.concatenate(
        (np.arange(201) / 200, [0.001, 0.002, 0.003, 0.004, 0.996, 0.997, 0.998, 0.999, 0.9995])
    )
)
OUTPUT_LEVELS = np.unique(np.concatenate((np.arange(101) / 100, [0.005, 0.995, 0.999])))


def load_prompt_lengths(table: str = "azure_conv_2023") -> QuantileLengths:
    """The prompt lengths of a shipped table (by its name) or of a table file (by its path)."""
    prompts = _load(table)["prompt_tokens"]
    return QuantileLengths(prompts["levels"], prompts["values"])


def load_output_lengths(table: str = "azure_conv_2023") -> ConditionalQuantileLengths:
    """The output lengths, given the prompts, of a shipped table or of a table file."""
    outputs = _load(table)["output_tokens"]
    return ConditionalQuantileLengths(outputs["prompt_edges"], outputs["levels"], outputs["values"])


def _load(table: str) -> dict[str, Any]:
    shipped = resources.files("workbench.workload") / "data" / f"{table}.json"
    source = shipped if shipped.is_file() else Path(table)
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = sorted(
            Path(entry.name).stem
            for entry in (resources.files("workbench.workload") / "data").iterdir()
        )
        raise WorkloadError(
            f"no length table {table!r}; the shipped ones are {', '.join(names)}, "
            "others are named by the path of their file"
        ) from None
    except (OSError, ValueError) as error:
        raise WorkloadError(f"length table {table} cannot be read: {error}") from None
    if not isinstance(content, dict) or not {"prompt_tokens", "output_tokens"} <= content.keys():
        raise WorkloadError(
            f"length table {table} lacks prompt_tokens or output_tokens; compute it again with "
            "python -m workbench.workload.quantile_tables"
        )
    return content


def compute_table(
    prompts: NDArray[np.int64], outputs: NDArray[np.int64]
) -> dict[str, dict[str, Any]]:
    """Quantiles of prompts, and of outputs by range of prompts (both [n], in tokens)."""
    levels = np.arange(1, NUM_PROMPT_RANGES) / NUM_PROMPT_RANGES
    edges = np.unique(np.quantile(prompts, levels, method="inverted_cdf"))
    ranges = np.searchsorted(edges, prompts, side="left")
    # a last range without requests would have no quantiles
    edges = edges[: int(ranges.max())]
    values = [_quantiles(outputs[ranges == i], OUTPUT_LEVELS) for i in range(int(ranges.max()) + 1)]
    return {
        "prompt_tokens": {
            "levels": PROMPT_LEVELS.tolist(),
            "values": _quantiles(prompts, PROMPT_LEVELS),
        },
        "output_tokens": {
            "prompt_edges": edges.tolist(),
            "levels": OUTPUT_LEVELS.tolist(),
            "values": values,
        },
    }


def _quantiles(lengths: NDArray[np.int64], levels: NDArray[np.float64]) -> list[float]:
    return [round(value, 2) for value in np.quantile(lengths, levels).tolist()]


def compute_azure_table(path: str, date: str) -> dict[str, Any]:
    """The whole table of an Azure trace file, its source and method named."""
    columns = AzureTrace(path).columns
    prompts, outputs = columns.num_prompt_tokens, columns.num_output_tokens
    span = float(columns.arrival_times[-1])
    return {
        "name": Path(path).stem,
        "source": "Azure LLM inference trace 2023, https://github.com/Azure/AzurePublicDataset",
        "licence": "CC-BY-4.0",
        "computed": date,
        "method": (
            "linear quantiles of ContextTokens; linear quantiles of GeneratedTokens in ranges of "
            "ContextTokens with about equal numbers of requests; rate = (requests - 1) / span"
        ),
        "num_requests": len(columns),
        "span_s": round(span, 3),
        "rate_per_s": round((len(columns) - 1) / span, 4),
        "mean_prompt_tokens": round(float(prompts.mean()), 3),
        "mean_output_tokens": round(float(outputs.mean()), 3),
        "correlation": round(float(np.corrcoef(prompts, outputs)[0, 1]), 4),
        **compute_table(prompts, outputs),
    }


def to_json(table: dict[str, Any]) -> str:
    """The table as text, one line a list of numbers."""

    def lines(value: Any, indent: str) -> str:
        deeper = indent + "  "
        if isinstance(value, dict):
            items = [f"{deeper}{json.dumps(k)}: {lines(v, deeper)}" for k, v in value.items()]
            return "{\n" + ",\n".join(items) + f"\n{indent}}}"
        if isinstance(value, list) and value and isinstance(value[0], list):
            return "[\n" + ",\n".join(deeper + json.dumps(row) for row in value) + f"\n{indent}]"
        return json.dumps(value)

    return lines(table, "") + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Compute a table from an Azure trace file and write it."""
    parser = argparse.ArgumentParser(description="Quantile table of an Azure LLM trace")
    parser.add_argument("trace", help="CSV with TIMESTAMP,ContextTokens,GeneratedTokens")
    parser.add_argument("--date", required=True, help="day to be noted in the table")
    parser.add_argument("--out", required=True, type=Path, help="file to write")
    options = parser.parse_args(arguments)
    options.out.write_text(to_json(compute_azure_table(options.trace, options.date)), "utf-8")


if __name__ == "__main__":
    main()
