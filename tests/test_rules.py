"""The house rules, held by machine: a rule that nobody tests is a wish."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "airgap"
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# Which module may import which library; everybody else goes through it.
IMPORTERS = {
    "click": {"cli/app.py", "cli/packing.py", "cli/reading.py", "cli/hosting.py", "cli/pushing.py", "cli/linting.py"},
    "tqdm": {"console.py"},
    "docker": {"machine/daemon.py"},
    "requests": {"online/transport.py"},
    "urllib3": {"online/transport.py", "machine/daemon.py"},
    "zstandard": {"bundle/frames.py"},
    "yaml": {"yamltext.py"},
    "subprocess": {"machine/run.py"},
    "cryptography": {"bundle/signing.py"},
}


def run(*argv: str) -> str:
    done = subprocess.run([sys.executable, "-m", *argv], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stdout[-6000:]}{done.stderr[-2000:]}"
    return done.stdout


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_types_are_strict_everywhere():
    run("mypy", "--no-error-summary")


def test_ruff_has_nothing_to_say():
    run("ruff", "check", "--quiet", "airgap", "tests")


def test_imports_go_down_only():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"Contracts: [2-9]\d* kept, 0 broken", done.stdout), done.stdout


@pytest.mark.parametrize("library", sorted(IMPORTERS))
def test_each_library_has_one_importer(library):
    found = {str(path.relative_to(PACKAGE)) for path in MODULES if library in imports(path)}
    assert found <= IMPORTERS[library]


def test_modules_fit_the_head():
    counts = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}
    assert not {name: count for name, count in counts.items() if count > 430}


def test_nothing_but_the_console_and_the_command_line_prints_or_reads_the_environment():
    found = set()
    allowed = {PACKAGE / "machine/run.py", *(PACKAGE / "cli").iterdir()}
    for path in set(MODULES) - allowed:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found.add(f"{path.relative_to(PACKAGE)}: print")
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
                found.add(f"{path.relative_to(PACKAGE)}: {node.attr}")
    assert not found


def test_fewer_than_one_patch_in_fifty_tests_and_none_of_our_own_modules():
    text = {path: path.read_text() for path in TESTS if path != Path(__file__)}
    tests = sum(len(re.findall(r"^\s*(?:async )?def test_", body, re.MULTILINE)) for body in text.values())
    patches = re.compile(r"monkeypatch\.(setattr|setitem|delattr)|mock\.patch|mocker\.|MagicMock|patch\(")
    found = [f"{path.name}: {line.strip()}" for path, body in text.items() for line in body.splitlines() if patches.search(line)]
    assert len(found) * 50 <= tests, found
    assert not [line for line in found if "airgap" in line]
