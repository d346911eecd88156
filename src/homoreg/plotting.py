"""Pictures of results, with matplotlib, which is optional and imported where it is used."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from homoreg.errors import InputError, MissingPackageError
from homoreg.files import atomic_write_bytes

__all__ = ["box_plot"]

# The axis: errors are drawn within these limits, px. The lower one is what they are rounded to, the upper one
# holds what diverged.
_LEAST, _MOST = 0.01, 1000.0


def box_plot(
    errors: Mapping[str, Mapping[str, ArrayLike]],
    path: str | os.PathLike[str],
    *,
    methods: Sequence[str],
    source: str = "",
) -> Path:
    """Draw the corner errors of every method as boxes on a logarithmic axis, a panel for each set.

    A box reaches from the first to the third quartile, its line is the median, its whiskers end at 5 % and
    95 %, and the pairs beyond are dots. An infinite error is drawn at 1000 px.

    Parameters
    ----------
    errors
        Errors in px by set and method.
    path
        PNG to write; its folder must exist.
    methods
        Order of the methods from the top. One that a set lacks leaves its line empty.
    source
        What the picture was made from, written into its metadata as ``Source``.

    Returns
    -------
    pathlib.Path
        ``path``.

    Raises
    ------
    InputError
        If there are no errors.
    MissingPackageError
        If matplotlib is not installed.
    OutputError
        If the file cannot be written.
    """
    if not errors or not any(errors.values()):
        raise InputError("there are no errors to draw; expected at least one set with one method")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(
            "the box plot needs matplotlib, which is not installed; install it with: "
            "pip install 'homoreg[benchmark]'"
        ) from error
    figure = Figure(figsize=(1.5 + 2.6 * len(errors), 1.3 + 0.3 * len(methods)), layout="constrained")
    panels = figure.subplots(1, len(errors), sharey=True, squeeze=False)[0]
    for panel, (name, by_method) in zip(panels, errors.items(), strict=True):
        there = [index for index, method in enumerate(methods) if method in by_method]
        values = [np.asarray(by_method[methods[index]], np.float64).clip(_LEAST, _MOST) for index in there]
        panel.boxplot(
            values,
            positions=there,
            orientation="horizontal",
            whis=(5, 95),
            widths=0.6,
            flierprops={"marker": ".", "markersize": 2, "markeredgecolor": "0.5"},
            medianprops={"color": "black"},
            boxprops={"facecolor": "#9ecae1"},
            patch_artist=True,
        )
        panel.set(title=name, xscale="log", xlim=(_LEAST * 2, _MOST), xlabel="corner error, px")
        panel.grid(visible=True, axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].set_ylim(len(methods) - 0.4, -0.6)
    buffer = io.BytesIO()
    # Neither time nor version: the same figures give the same file.
    figure.savefig(buffer, format="png", dpi=100, metadata={"Source": source, "Software": None})
    return Path(atomic_write_bytes(path, buffer.getbuffer()))
