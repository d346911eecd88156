"""Model cards: what is known of a model, and that the rest is not, in the Hugging Face Hub's Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from homoreg.pins import PINS

__all__ = ["loaded_as", "model_card", "pictures_in", "with_pictures", "with_results"]

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"

_TAGS = ("homography", "image-registration", "infrared", "thermal", "multimodal", "safetensors")
_LOADED_AS = re.compile(r'from_pretrained\("([^"\n]*)"\)')
_PICTURE = re.compile(r"!\[[^\]]*\]\(([A-Za-z0-9][\w-]*\.(?:jpg|png))\)", re.ASCII)
_IDENTIFIER = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)

_CARD = """\
---
{metadata}
---

# {name}

Registers an infrared image to an RGB image: one homography from infrared to RGB pixels, and how far to trust
it. Architecture `{architecture}` of homoreg, {parameters:,} parameters.

## Use

With homoreg installed{place}:

```python
from homoreg import Registrar

registrar = Registrar.from_pretrained("{load_as}")
result = registrar("infrared.png", "rgb.png")
print(result.homography, result.expected_error, result.confidence)
result.save("out")
```

## Results

Mean corner error in px at the template scale. `nothing` answers with the centred square.

{begin}
Not measured for these weights.
{end}

## Data

{data}

Training: {training}.

## Licences

Weights: {licence}. The images they were trained on have their own, see above.

## Limits

One homography describes a plane, or cameras that share a centre: parallax remains. Lens distortion is not
modelled. Periodic texture and nearly featureless scenes can be matched wrongly; the confidence tells most
such cases, not all, and is calibrated for images like those of the training.

## Files

| file | SHA-256 |
|---|---|
{files}
"""


def model_card(
    name: str,
    *,
    architecture: str,
    parameters: int,
    training: Mapping[str, Any],
    load_as: str,
    digests: Mapping[str, str],
) -> str:
    """Write a model card.

    Parameters
    ----------
    name
        Of the model.
    architecture, parameters
        Registered name, and how many numbers were trained.
    training
        Facts. ``license`` (an identifier such as ``"apache-2.0"``) and ``data`` (a list of objects with
        ``name``, ``pairs``, ``license`` and ``url``) get places of their own, the rest is shown as it is.
    load_as
        Name, folder or repository in the lines that load the model.
    digests
        SHA-256 in hex by file name.

    Returns
    -------
    str
        Markdown with the Hub's metadata at its head.
    """
    licence = training.get("license")
    licence = licence if isinstance(licence, str) and _IDENTIFIER.fullmatch(licence) else None
    rest = {key: value for key, value in training.items() if key not in ("license", "data")}
    metadata = ["library_name: homoreg", *([f"license: {licence}"] if licence else []), "tags:"]
    return _CARD.format(
        metadata="\n".join([*metadata, *(f"- {tag}" for tag in _TAGS)]),
        name=_text(name),
        architecture=architecture,
        parameters=parameters,
        place=", in this folder" if load_as == "." else "",
        load_as=load_as,
        begin=BEGIN,
        end=END,
        data=_data_table(training.get("data")),
        training=_text(json.dumps(rest)) if rest else "nothing was recorded",
        licence=licence or "not stated",
        files="\n".join(f"| {file} | `{digest}` |" for file, digest in sorted(digests.items())),
    )


def loaded_as(card: str, load_as: str) -> str:
    """Let a card load something else; a registered name in it stays, as it means the same everywhere."""

    def replaced(found: re.Match[str]) -> str:
        return found[0] if found[1] in PINS else f'from_pretrained("{load_as}")'

    return _LOADED_AS.sub(replaced, card)


def with_results(card: str, table: str | None) -> str:
    """Put a Markdown table between a card's result markers, if there is one and there are any."""
    head, begin, rest = card.partition(BEGIN)
    _, end, tail = rest.partition(END)
    return f"{head}{begin}\n{table}\n{end}{tail}" if table and begin and end else card


def with_pictures(card: str, pictures: Mapping[str, str]) -> str:
    """Show pictures, captions by file name, above a card's first section."""
    if not pictures:
        return card
    shown = [f"![{_text(caption)}]({file})\n\n*{_text(caption)}*\n" for file, caption in pictures.items()]
    head, section, tail = card.partition("\n## ")
    return "\n".join([head, *shown]) + section + tail


def pictures_in(card: str) -> list[str]:
    """File names of the pictures that a card shows and that lie beside it."""
    return _PICTURE.findall(card)


def _text(value: object) -> str:
    """One line that cannot end a table cell or begin a tag."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _data_table(data: Any) -> str:
    if not isinstance(data, list) or not data or not all(isinstance(row, dict) for row in data):
        return "What these weights were trained on was not recorded."
    rows = ["| source | pairs | licence |", "|---|--:|---|"]
    for row in data:
        name, pairs, licence = (_text(row.get(key, "not stated")) for key in ("name", "pairs", "license"))
        source = f"[{name}]({_text(row['url'])})" if "url" in row else name
        rows.append(f"| {source} | {pairs} | {licence} |")
    return "\n".join(rows)
