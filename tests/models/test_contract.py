from __future__ import annotations

import json

from homoreg.models import ARCHITECTURES
from tests.models.contract import GOLDEN, TINY, ModelContract


class TestContract(ModelContract):
    """Every registered architecture."""


def test_every_architecture_has_a_tiny_config_and_golden_numbers() -> None:
    assert sorted(TINY) == sorted(ARCHITECTURES)
    assert sorted(json.loads(GOLDEN.read_text(encoding="utf-8"))) == sorted(ARCHITECTURES)
