"""House rules that can be read off the source: imports run one way, policy code has no clock."""

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
ROOMS = ("workbench", "simulator", "engine", "kernels", "experiments")
MAY_IMPORT = {
    "workbench": set(),
    "kernels": set(),
    "simulator": {"workbench", "kernels"},
    "engine": {"workbench", "kernels"},
    "experiments": {"workbench", "kernels", "simulator", "engine"},
}
NO_TORCH = {"torch", "triton", "transformers", "safetensors"}
FORBIDDEN_PACKAGES = {
    "simulator": NO_TORCH | {"hydra", "omegaconf", "matplotlib"},
    "experiments": NO_TORCH,
}
OWN_CHANCE_AND_CLOCK = {"time", "datetime", "random", "secrets", "uuid", "socket", "threading"}
ENVIRONMENT = {"environ", "environb", "getenv", "urandom", "putenv"}
GLOBAL_RANDOM = {"rand", "randn", "randint", "seed", "random", "choice", "shuffle", "permutation"}


def _sources(room: str) -> list[Path]:
    return sorted((REPOSITORY / room).rglob("*.py"))


def _imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module


FILES = [(room, path) for room in ROOMS for path in _sources(room)]
NAMES = [str(path.relative_to(REPOSITORY)) for _, path in FILES]


@pytest.mark.parametrize(("room", "path"), FILES, ids=NAMES)
def test_imports_run_downward(room: str, path: Path) -> None:
    forbidden = set(ROOMS) - {room} - MAY_IMPORT[room] | FORBIDDEN_PACKAGES.get(room, set())
    for line, module in _imported(ast.parse(path.read_text())):
        assert module.partition(".")[0] not in forbidden, f"{path}:{line} imports {module}"


@pytest.mark.parametrize("path", _sources("workbench"), ids=str)
def test_policy_code_imports_the_standard_library_and_numpy(path: Path) -> None:
    allowed = set(sys.stdlib_module_names) - OWN_CHANCE_AND_CLOCK | {"numpy", "workbench"}
    tree = ast.parse(path.read_text())
    seeded_stream = {
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module == "random"
        and [alias.name for alias in node.names] == ["Random"]
    }
    for line, module in _imported(tree):
        if line in seeded_stream:
            continue
        assert module.partition(".")[0] in allowed, f"{path}:{line} imports {module}"


@pytest.mark.parametrize("path", _sources("workbench"), ids=str)
def test_policy_code_has_no_clock_chance_or_environment_of_its_own(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("os", name) for name in ENVIRONMENT}, (
                f"{path}:{node.lineno} reads the environment: take the value as an argument"
            )
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            assert not ENVIRONMENT & {alias.name for alias in node.names}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            own = node.value.attr == "random" and node.attr in GLOBAL_RANDOM
            assert not own, (
                f"{path}:{node.lineno} draws from numpy's global stream: take a Generator"
            )


def test_kernels_package_is_ours_and_empty() -> None:
    kernels = importlib.import_module("kernels")
    assert kernels.__file__ == str(REPOSITORY / "kernels" / "__init__.py")
    assert Path(kernels.__file__).read_text().strip() == ""


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_says_what_it_knows(room: str) -> None:
    for path in _sources(room):
        text = path.read_text()
        if text.strip():
            assert ast.get_docstring(ast.parse(text)), f"{path} has no module docstring"
