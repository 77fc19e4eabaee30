"""The files that a run reads: where they lie and what was in them.

Knows which settings name files, how their relative paths are meant, and what of a folder is read.
Knows no file format. Parts that ship with the code are none of these: the revision tells of them.
"""

import functools
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import ConfigError

MODEL_CONFIG = "config.json"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")  # too large to be read for a digest
PROFILES = (".csv", ".parquet", ".json", ".yaml", ".yml")  # what a folder of profiles consists of
ABOUT_PROFILES = "meta.yaml"  # lies in the folder or beside it
MAX_FILES = 10_000
ENGINE = "EngineBackend"

Input = dict[str, Any]
"""setting, path (absolute), bytes and sha256 of a file; sha256 is None for a model's weights."""


def with_absolute_paths(node: Any) -> Any:
    """A resolved config with the paths of what exists made absolute, for use from anywhere.

    A file in `traces_dir` keeps its name: the folder is made absolute.
    """
    if isinstance(node, list):
        return [with_absolute_paths(value) for value in node]
    if not isinstance(node, Mapping):
        return node
    return {key: _absolute(node, str(key), value) for key, value in node.items()}


def _absolute(node: Mapping[Any, Any], key: str, value: Any) -> Any:
    if not _names_a_file(key, value):
        return with_absolute_paths(value)
    if key == "path" and node.get("traces_dir"):
        return value
    place = os.path.abspath(Path(value).expanduser())
    return place if key == "traces_dir" or os.path.exists(place) else value


def _names_a_file(key: str, value: Any) -> bool:
    if not isinstance(value, str) or not value:
        return False
    if key == "table":  # the name of a shipped one, or a file
        return value.endswith(".json")
    return key in ("path", "file", "folder") or key.endswith(("_path", "_file", "_dir"))


def inputs_of(config: Mapping[str, Any]) -> list[Input]:
    """Every file that a run of this resolved config reads and that is there, with its digest.

    Raises ConfigError for a folder that holds too much to be a profile.
    """
    ranks = (config.get("parallel") or {}).get("tensor_parallel_size", 1)
    serves = str((config.get("backend") or {}).get("_target_")).endswith(ENGINE)
    found: list[Input] = []
    for setting, place in _places(config, ""):
        if setting == "model.path" or (place / MODEL_CONFIG).is_file():
            found += _checkpoint(setting, place, weights=serves)
        elif place.is_file():
            found.append(_digested(setting, place))
        elif place.is_dir():
            found += [_digested(setting, file) for file in _profile(setting, place, ranks)]
    return found


def _places(node: Any, where: str) -> Iterator[tuple[str, Path]]:
    """(full name, path) of every setting that names a file or a folder."""
    if isinstance(node, list):
        for i, value in enumerate(node):
            yield from _places(value, f"{where}[{i}]")
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        name = f"{where}.{key}" if where else str(key)
        if key == "traces_dir":
            continue
        if _names_a_file(str(key), value):
            folder = node.get("traces_dir") if key == "path" else None
            yield name, Path(folder or "").expanduser() / Path(value).expanduser()
        else:
            yield from _places(value, name)


def _checkpoint(setting: str, place: Path, *, weights: bool) -> Iterator[Input]:
    """A model's config, and on the engine its weights by name and size."""
    file = place / MODEL_CONFIG if place.is_dir() else place
    if file.is_file():
        yield _digested(setting, file)
    if weights:
        for part in sorted(p for p in file.parent.glob("*") if p.suffix in WEIGHTS):
            yield _entry(setting, part, part.stat().st_size, None)


def _profile(setting: str, folder: Path, ranks: int) -> list[Path]:
    """The files of a folder of profiles, without those of other tensor parallel sizes."""
    files = [folder.parent / ABOUT_PROFILES] if (folder.parent / ABOUT_PROFILES).is_file() else []
    seen = 0
    for directory, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if f == f"tp{ranks}" or not re.fullmatch(r"tp\d+", f)]
        seen += len(names) + len(folders)
        if seen > MAX_FILES:
            raise ConfigError(
                f"{setting}={folder} holds more than {MAX_FILES} files, and no profile does: "
                "name the folder of the profile itself"
            )
        files += [Path(directory, name) for name in names if name.endswith(PROFILES)]
    return sorted(files)


def _digested(setting: str, file: Path) -> Input:
    seen = file.stat()
    digest = _sha256(str(file), seen.st_size, seen.st_mtime_ns, seen.st_ino)
    return _entry(setting, file, seen.st_size, digest)


def _entry(setting: str, file: Path, size: int, digest: str | None) -> Input:
    return {
        "setting": setting,
        "path": os.path.abspath(file),
        "bytes": size,
        "sha256": digest,
    }


@functools.lru_cache(maxsize=MAX_FILES)
def _sha256(path: str, size: int, mtime_ns: int, inode: int) -> str:
    """The digest of a file; the jobs of a sweep read it once, unless the file is another."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def changes(before: Sequence[Input], now: Sequence[Input]) -> list[str]:
    """What is no longer as a run has read it, a phrase a file. Files may have moved, as a whole."""
    told = []
    for old in before:
        same_name = [new for new in now if _name(new) == _name(old)]
        if any(_content(new) == _content(old) for new in same_name):
            continue
        told.append(f"{old['setting']}: {old['path']} {_difference(old, same_name)}")
    names = {_name(old) for old in before}
    told += [f"{n['setting']}: {n['path']} is new" for n in now if _name(n) not in names]
    return told


def missing(before: Sequence[Input], now: Sequence[Input]) -> bool:
    """Whether something that a run has read is no longer there."""
    return bool({_name(old) for old in before} - {_name(new) for new in now})


def _name(entry: Input) -> tuple[str, str]:
    return entry["setting"], Path(entry["path"]).name


def _content(entry: Input) -> tuple[int, str | None]:
    return entry["bytes"], entry["sha256"]


def _difference(old: Input, now: Sequence[Input]) -> str:
    if not now:
        return "is not there"
    if old["sha256"] is None or now[0]["sha256"] is None:
        return f"has changed ({old['bytes']} bytes then, {now[0]['bytes']} now)"
    return f"has changed (sha256 {old['sha256'][:12]} then, {now[0]['sha256'][:12]} now)"
