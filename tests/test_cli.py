"""The command line as a person or a script meets it: flags anywhere, exit codes as promised, help for every verb."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from airgap import errors
from tests.bundles import Packer

ROOT = Path(__file__).parents[1]
VERBS = (
    "lock", "pack", "verify", "inspect", "install", "status", "doctor", "rollback", "uninstall", "receipt", "push", "lint",
)  # fmt: skip


def airgap(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "airgap", *words], cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, **env}, timeout=60,
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Packer(tmp_path_factory.mktemp("pack")).bundle()


def test_every_verb_is_there_with_help():
    text = airgap("--help").stdout
    shown = re.findall(r"^  ([a-z]+) ", text.partition("\nCommands:\n")[2].partition("\n\n")[0], re.MULTILINE)
    assert sorted(shown) == sorted(VERBS)
    for verb in VERBS:
        assert "Example" in airgap(verb, "--help").stdout, verb


def test_the_readme_has_every_verb_and_an_answer_for_every_exit_code():
    text = (ROOT / "README.md").read_text()
    assert [verb for verb in VERBS if f"airgap {verb}" not in text] == []
    codes = {item.exit_code for item in vars(errors).values() if isinstance(item, type) and issubclass(item, errors.AirgapError)}
    assert codes | {0} == {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}


def test_inspect_tells_the_digest_that_a_packer_can_read_out_over_the_telephone(bundle: Path):
    with tarfile.open(bundle) as tar:
        index = tar.extractfile("index.json")
        assert index is not None
        digest = hashlib.sha256(index.read()).hexdigest()
    assert f"index.json  sha256:{digest}" in airgap("inspect", str(bundle)).stdout


@pytest.mark.parametrize("words", [("--json", "inspect"), ("inspect", "--json")])
def test_json_may_stand_before_the_verb_or_behind_it(bundle: Path, words: tuple[str, ...]):
    done = airgap(*words, str(bundle))
    assert done.returncode == 0
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["event"], last["verb"], last["name"]) == ("result", "inspect", "farm")


def test_usage_errors_are_json_too():
    done = airgap("nonsense", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["code"] == 2


def test_verbose_and_quiet_are_heard(bundle: Path):
    assert len(airgap("inspect", "-v", str(bundle)).stdout) > len(airgap("inspect", str(bundle)).stdout)
    assert airgap("verify", "-q", str(bundle)).stderr == ""
    assert "whole" in airgap("-q", "verify", str(bundle)).stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("install",), 2, "Missing argument"),
        (("install", "x", "--engine", "new"), 2, "Invalid value for '--engine'"),
        (("install", "x", "--only", "plugins"), 2, "there is no kind 'plugins'"),
        (("rollback", "--to", "zero"), 2, "Invalid value for '--to'"),
        (("pack", "--locked", "x", "-m", "y"), 2, "--locked says it all"),
        (("pack", "-m", "/nowhere.yaml"), 3, "/nowhere.yaml"),
        (("verify", "README.md"), 10, "README.md"),
        (("install", "--plan", "README.md"), 10, "README.md"),
    ],
)
def test_what_goes_wrong_has_the_exit_code_of_its_kind_and_no_traceback(words: tuple[str, ...], code: int, said: str):
    done = airgap(*words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_environment_variable_mirrors_its_flag():
    done = airgap("install", "x", AIRGAP_INSTALL_ONLY="plugins")
    assert "there is no kind 'plugins'" in done.stderr


def test_a_reader_that_goes_away_is_no_error(bundle: Path):
    command = [sys.executable, "-m", "airgap", "inspect", "-v", str(bundle)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
        assert process.wait() == 0


def test_an_output_that_was_closed_from_the_start_is_no_bug(bundle: Path):
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -m airgap verify "$1" >&-', sys.executable, str(bundle)], cwd=ROOT, capture_output=True, check=False
    )
    assert (done.returncode, b"bug" in done.stderr) == (0, False)
