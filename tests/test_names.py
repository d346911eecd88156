from __future__ import annotations

import pytest

from homoreg.errors import HomoregError, UnknownNameError
from homoreg.models import build
from homoreg.names import suggest
from homoreg.pretrained import locate
from homoreg.training import get_recipe


@pytest.mark.parametrize(
    ("name", "meant"), [("m12", "m120"), ("M120", "m120"), ("dlkmf", "dlkfm"), ("x", "")]
)
def test_the_closest_name_is_suggested(name: str, meant: str) -> None:
    expected = f". Did you mean {meant!r}?" if meant else ""
    assert suggest(name, ["m120", "dlkfm", "mhn"]) == expected


def test_nothing_is_suggested_where_nothing_is_known() -> None:
    assert suggest("m120", []) == ""


def test_errors_of_unknown_names_suggest() -> None:
    for call, meant in (
        (lambda: locate("m12O"), "m120"),
        (lambda: build("mm"), "m"),
        (lambda: get_recipe("mm"), "m"),
    ):
        with pytest.raises(UnknownNameError, match=rf"Did you mean '{meant}'\?$") as error:
            call()
        assert isinstance(error.value, HomoregError)
