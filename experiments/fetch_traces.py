"""Download the public request traces, checked against their SHA-256: `--out DIR`.

Knows where each trace lies, under which licence, and what its bytes must be. A broken download is
taken up again from its `.part` file; a trace appears under its name only when it is whole.
"""

import argparse
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import WorkbenchError, WorkloadError

_AZURE = (
    "https://raw.githubusercontent.com/Azure/AzurePublicDataset/"
    "790921015d50dd6aae7f7e47f39ba0e235ad6b08/data/"
)
_MOONCAKE = (
    "https://raw.githubusercontent.com/kvcache-ai/Mooncake/"
    "3cca71daccf2a7afb8fe3f0295358f70e3a69fdb/FAST25-release/traces/"
)
_CHUNK = 1 << 16
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class TraceSource:
    """A trace file of the web: its name here, address, SHA-256, size in bytes, licence."""

    name: str
    url: str
    sha256: str
    size: int
    licence: str


TRACES = (
    TraceSource(
        "AzureLLMInferenceTrace_conv.csv",
        _AZURE + "AzureLLMInferenceTrace_conv.csv",
        "2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8",
        719188,
        "CC-BY-4.0",
    ),
    TraceSource(
        "AzureLLMInferenceTrace_code.csv",
        _AZURE + "AzureLLMInferenceTrace_code.csv",
        "54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6",
        320117,
        "CC-BY-4.0",
    ),
    TraceSource(
        "mooncake_conversation_trace.jsonl",
        _MOONCAKE + "conversation_trace.jsonl",
        "b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df",
        3029533,
        "Apache-2.0",
    ),
    TraceSource(
        "mooncake_synthetic_trace.jsonl",
        _MOONCAKE + "synthetic_trace.jsonl",
        "bd070915a98fc0ed264d7cfef2ce746002eb3076a695ec31ba2674c0111ec131",
        1136313,
        "Apache-2.0",
    ),
)


def fetch(source: TraceSource, folder: Path, force: bool = False) -> bool:
    """Bring one trace into `folder`; False if it is there already.

    Raises WorkloadError when it cannot be had, when its bytes are not the expected ones, or when a
    different file of its name is in the way (unless `force`).
    """
    target = folder / source.name
    part = folder / (source.name + ".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists():
            if _sha256(target) == source.sha256:
                return False
            if not force:
                raise WorkloadError(
                    f"{target} is there, but its SHA-256 is not {source.sha256}; move it away, or "
                    "replace it with --force"
                )
        if not part.exists() or _sha256(part) != source.sha256:
            _download(source, part)
        found = _sha256(part)
        if found != source.sha256:
            part.unlink()
            raise WorkloadError(
                f"{source.url} gave a file with SHA-256 {found}, but it must be {source.sha256}; "
                "try again, or look whether a proxy changes downloads"
            )
        os.replace(part, target)
    except OSError as error:  # of the local disk: those of the network are WorkloadErrors already
        raise WorkloadError(f"{target} cannot be written ({error}); choose another --out") from None
    return True


def _download(source: TraceSource, part: Path) -> None:
    """Append to `part` what it lacks, or begin anew where the server cannot resume."""
    have = part.stat().st_size if part.exists() else 0
    if have >= source.size:
        have = 0
    request = urllib.request.Request(source.url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            resumed = getattr(answer, "status", None) == http.client.PARTIAL_CONTENT
            _copy(answer.read, part, "ab" if resumed else "wb", source.size)
    except urllib.error.HTTPError as error:
        raise _no_download(source, part, f"{error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _no_download(source, part, str(error.reason)) from None
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _no_download(source, part, str(error) or type(error).__name__) from None
    size = part.stat().st_size
    if size < source.size:
        raise _no_download(source, part, f"it broke off after {size} of {source.size} bytes")


def _copy(read: Callable[[int], bytes], part: Path, mode: str, limit: int) -> None:
    with part.open(mode) as file:
        while (chunk := read(_CHUNK)) and file.tell() <= limit:
            file.write(chunk)


def _no_download(source: TraceSource, part: Path, reason: str) -> WorkloadError:
    return WorkloadError(
        f"{source.url} cannot be downloaded ({reason}); try again when online (a part is kept), or "
        f"bring the file from elsewhere to {part.parent / source.name}"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_all(
    sources: Iterable[TraceSource], folder: Path, force: bool, say: Callable[[str], None]
) -> None:
    """Fetch traces one after the other and `say` what became of each."""
    for source in sources:
        is_new = fetch(source, folder, force)
        state = "fetched" if is_new else "already there"
        say(f"{source.name}: {state}, {source.size:,} bytes, checked ({source.licence})")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    names = [source.name for source in TRACES]
    parser = argparse.ArgumentParser(
        prog="workbench fetch-traces",
        description="Download the public request traces of Azure and Mooncake.",
        epilog="Then run with traces_dir=DIR. Files: " + ", ".join(names),
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to put them")
    parser.add_argument("--only", nargs="+", choices=names, metavar="FILE", help="some of them")
    parser.add_argument("--force", action="store_true", help="replace files that differ")
    options = parser.parse_args(arguments)
    chosen = [source for source in TRACES if not options.only or source.name in options.only]
    try:
        fetch_all(chosen, options.out, options.force, print)
    except WorkbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"use them with traces_dir={options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
