from __future__ import annotations

import re
from typing import Any

import yaml  # type: ignore[import-untyped]  # huggingface_hub brings it

from homoreg.card import loaded_as, model_card, pictures_in, with_pictures, with_results

DIGESTS = {"model.safetensors": "a" * 64, "config.json": "b" * 64}


def card(**changes: Any) -> str:
    values: dict[str, Any] = {
        "architecture": "m",
        "parameters": 1234567,
        "training": {},
        "load_as": "ana/small",
        "digests": DIGESTS,
    }
    return model_card("small", **(values | changes))


def metadata(text: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", text, flags=re.DOTALL)
    assert found is not None
    values = yaml.safe_load(found[1])
    assert isinstance(values, dict)
    return values


def test_a_card_of_nothing_known_claims_nothing() -> None:
    text = card()
    assert set(metadata(text)) == {"library_name", "tags"}
    for admission in (
        "Not measured for these weights.",
        "What these weights were trained on was not recorded.",
        "Training: nothing was recorded.",
        "Weights: not stated.",
    ):
        assert admission in text
    assert "1,234,567 parameters" in text
    assert all(digest in text for digest in DIGESTS.values())


def test_what_is_known_is_shown() -> None:
    data = [
        {"name": "Sea | ice", "pairs": 12, "license": "MIT", "url": "https://example.org/ice"},
        {"name": "b"},
    ]
    text = card(training={"license": "apache-2.0", "data": data, "epochs": 3})
    assert metadata(text)["license"] == "apache-2.0"
    assert "| [Sea \\| ice](https://example.org/ice) | 12 | MIT |" in text
    assert "| b | not stated | not stated |" in text
    assert 'Training: {"epochs": 3}.' in text
    assert "Weights: apache-2.0." in text


def test_facts_cannot_become_metadata_or_markup() -> None:
    text = card(training={"license": "mit\nlibrary_name: evil", "data": "x", "note": "<script>\n---\n"})
    assert metadata(text)["library_name"] == "homoreg"
    assert "license" not in metadata(text)
    assert "<script>" not in text


def test_a_card_says_what_to_load() -> None:
    assert 'Registrar.from_pretrained("ana/small")' in card()
    assert "in this folder" in card(load_as=".")
    assert 'from_pretrained("bob/big")' in loaded_as(card(), "bob/big")
    registered = card(load_as="m120")
    assert loaded_as(registered, "bob/big") == registered


def test_results_go_between_the_markers() -> None:
    first = with_results(card(), "| a |")
    assert "Not measured" not in first
    assert "| a |" in first
    assert with_results(first, "| b |") == first.replace("| a |", "| b |")
    assert with_results(first, None) == first
    assert with_results("no markers", "| a |") == "no markers"


def test_pictures_stand_above_the_first_section() -> None:
    text = with_pictures(card(), {"example-1.jpg": "one", "example-2.jpg": "two"})
    assert text.index("![one](example-1.jpg)") < text.index("![two](example-2.jpg)") < text.index("\n## Use")
    assert pictures_in(text) == ["example-1.jpg", "example-2.jpg"]
    assert with_pictures(card(), {}) == card()
    assert pictures_in("![a](../secret.jpg) ![b](https://example.org/x.png) ![c](/etc/x.png)") == []
