"""The picture of errors, the classes and the codes are one thing."""

import re
from pathlib import Path

import pytest

from airgap import errors
from airgap.errors import AirgapError

README = Path(__file__).parents[1] / "README.md"
ROWS = re.findall(r"^    ([│ ]*)[├└]── (\w+) +(\d+) +(.+)$", errors.__doc__ or "", re.MULTILINE)
CLASSES = {name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, AirgapError)}


def test_the_picture_shows_every_class_and_no_other():
    assert {name for _, name, _, _ in ROWS} | {"AirgapError"} == set(CLASSES)
    assert len(ROWS) == len(CLASSES) - 1


def test_the_picture_shows_the_codes_the_classes_have_and_no_code_twice():
    codes = {name: int(code) for _, name, code, _ in ROWS}
    assert codes == {name: item.exit_code for name, item in CLASSES.items() if item is not AirgapError}
    assert len({*codes.values(), 0, errors.BUG}) == len(codes) + 2


def test_the_picture_shows_who_descends_from_whom():
    above = {-1: AirgapError}
    for indent, name, _, _ in ROWS:
        level = len(indent) // 4
        assert CLASSES[name].__bases__ == (above[level - 1],), name
        above[level] = CLASSES[name]


def test_the_codes_are_those_of_the_design():
    assert {item.exit_code for item in CLASSES.values()} == {2, 3, 4, 5, 6, 10, 11, 12, 20, 21, 22, 70, 130}


def test_an_error_is_its_message_and_may_carry_a_hint():
    error = errors.FetchError("no answer", hint="try again")
    assert (str(error), error.message, error.hint) == ("no answer", "no answer", "try again")
    assert errors.FetchError("no answer").hint is None


@pytest.mark.skipif(not README.exists(), reason="no README yet")
def test_the_readme_names_every_code():
    text = README.read_text()
    missing = [code for _, _, code, _ in ROWS if not re.search(rf"\b{code}\b", text)]
    assert not missing
