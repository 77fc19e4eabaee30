"""The tensors of a checkpoint folder: which there are, and copies of them into place.

Knows safetensors files, alone or sharded by an index. Does not know models beyond the views that
tensors are copied into.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from engine.errors import ModelLoadError
from engine.layers.weights import Destinations

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# what other programs write; none of it is read
FOREIGN = ("*.bin", "*.pt", "*.pth", "*.gguf")
FLOAT_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8}
# buffers that old checkpoints carry and every model computes itself
IGNORED_SUFFIXES = ("rotary_emb.inv_freq",)
NAMES_SHOWN = 4
# A mapped file counts as memory in use once it is read, so a large one is mapped again and again.
MAPPED_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor as its file's header describes it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: Path

    @property
    def num_bytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * FLOAT_BYTES.get(self.dtype, 1)


class Checkpoint:
    """The safetensors files of one folder."""

    def __init__(self, folder: Path) -> None:
        """Read the headers, not the data.

        Raises:
            ModelLoadError: no weights, a file that is missing, truncated or damaged.
        """
        self.folder = folder
        self.records = {
            record.name: record for file in _weight_files(folder) for record in _read_header(file)
        }

    def check(self, destinations: Destinations, is_tied: bool) -> None:
        """Compare names, shapes and dtypes with the model's, before any data are read.

        Args:
            destinations: where the model's tensors go.
            is_tied: the output projection is the embedding, so a copy of it is ignored.

        Raises:
            ModelLoadError: tensors that are missing, unknown, of another shape or quantized.
        """
        ignored = {name for name in self.records if name.endswith(IGNORED_SUFFIXES)}
        if is_tied:
            ignored.add("lm_head.weight")
        for name in ignored:
            self.records.pop(name, None)
        self._check_names(destinations)
        for record in self.records.values():
            expected = tuple(destinations[record.name].tensor.shape)
            if record.shape != expected:
                raise ModelLoadError(
                    f"{record.name} in {record.file} has shape {list(record.shape)}, config.json "
                    f"asks for {list(expected)}: the two are not of the same model"
                )
            if record.dtype not in FLOAT_BYTES:
                raise ModelLoadError(
                    f"{record.name} in {record.file} has dtype {record.dtype}, not one of "
                    f"{', '.join(FLOAT_BYTES)}: use a checkpoint that is not quantized"
                )

    def copy_into(self, destinations: Destinations, mapped_bytes: int = MAPPED_BYTES) -> None:
        """Copy every tensor into its view, one at a time, cast to the view's dtype.

        Files are mapped while they are read and unmapped again after about `mapped_bytes`, so no
        second copy is held.
        """
        for batch in _batches(self.records.values(), mapped_bytes):
            with safe_open(batch[0].file, framework="pt", device="cpu") as tensors:
                for record in batch:
                    destinations[record.name].tensor.copy_(tensors.get_tensor(record.name))

    def _check_names(self, destinations: Destinations) -> None:
        unknown = sorted(self.records.keys() - destinations.keys())
        if unknown:
            raise ModelLoadError(
                f"{self.folder} has {len(unknown)} tensors that the model does not know: "
                f"{_some(unknown)}; config.json does not describe these weights"
            )
        filled = {
            plain for name in self.records for plain in destinations[name].stands_for or (name,)
        }
        missing = [
            name
            for name, destination in destinations.items()
            if not destination.stands_for and name not in filled
        ]
        if missing:
            raise ModelLoadError(
                f"{self.folder} lacks {len(missing)} tensors that config.json asks for: "
                f"{_some(missing)}; download the checkpoint again"
            )


def _batches(records: Iterable[TensorRecord], num_bytes: int) -> Iterator[list[TensorRecord]]:
    """Neighbours of one file, in order, of about `num_bytes` together."""
    batch: list[TensorRecord] = []
    for record in records:
        is_full = sum(member.num_bytes for member in batch) >= num_bytes
        if batch and (is_full or record.file != batch[0].file):
            yield batch
            batch = []
        batch.append(record)
    if batch:
        yield batch


def _weight_files(folder: Path) -> list[Path]:
    # the order of transformers, for folders that hold both
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return _indexed_files(folder / INDEX)
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    foreign = sorted(path.name for pattern in FOREIGN for path in folder.glob(pattern))
    if foreign:
        raise ModelLoadError(
            f"{folder} has weights only in {_some(foreign)}: convert them to safetensors, for "
            "example with transformers' save_pretrained"
        )
    raise ModelLoadError(
        f"{folder} has no *.safetensors: download the weights, or use load_format='dummy' for "
        "random ones"
    )


def _indexed_files(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelLoadError(
            f"{index} is not an index of safetensors ({error!r}): download it again"
        ) from None
    absent = [name for name in names if not (index.parent / name).is_file()]
    if absent:
        raise ModelLoadError(
            f"{index.parent} lacks {len(absent)} of {len(names)} files that its index names: "
            f"{_some(absent)}; download them"
        )
    return [index.parent / name for name in names]


def _read_header(file: Path) -> Iterator[TensorRecord]:
    try:
        with safe_open(file, framework="pt", device="cpu") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                part = tensors.get_slice(name)
                yield TensorRecord(name, tuple(part.get_shape()), part.get_dtype(), file)
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(
            f"{file} is truncated or damaged ({error}): download it again"
        ) from error


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    return f"{shown}, …" if len(names) > NAMES_SHOWN else shown
