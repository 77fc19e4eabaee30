"""What the device and the software are, and the device's ceilings, as one JSON file.

python -m kernels.device_report --out FILE.json [--dry-run]
"""

import argparse
import json
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from kernels.measure import measure_ceilings

PACKAGES = ("torch", "triton", "transformers", "numpy")


def device_report(device: torch.device, is_dry_run: bool) -> dict[str, Any]:
    """Names, versions, memory and ceilings."""
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "device": str(device),
        "is_dry_run": is_dry_run,
        "ceilings": asdict(measure_ceilings(device, is_dry_run)),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        report |= {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "num_sms": properties.multi_processor_count,
            "capability": f"{properties.major}.{properties.minor}",
        }
    return report


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    report = json.dumps(device_report(device, args.dry_run), indent=2)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(report + "\n")
    print(report)


if __name__ == "__main__":
    main()
