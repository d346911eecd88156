from __future__ import annotations

from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import click
from sphinx.application import Sphinx

project = "homoreg"
author = "The homoreg authors"
copyright = "the homoreg authors, Apache-2.0"
release = version = installed_version("homoreg")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "api/generated"]
html_theme = "furo"
html_title = f"homoreg {release}"

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

napoleon_google_docstring = False
napoleon_use_ivar = True
autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88


def command_help(command: click.Command, name: str, parent: click.Context | None = None) -> str:
    """Help text of a command and of the commands below it, as the command line prints it."""
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=88, **command.context_settings
    )
    text = f"$ {context.command_path} --help\n{command.get_help(context)}\n\n"
    if isinstance(command, click.Group):
        text += "".join(command_help(command.commands[sub], sub, context) for sub in sorted(command.commands))
    return text


def write_command_line_help(app: Sphinx) -> None:
    """Write what api/command-line.md includes, so that the page cannot differ from the program."""
    from homoreg.cli import main

    target = Path(app.srcdir) / "api" / "generated" / "command-line.txt"
    text = command_help(main, "homoreg")
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", write_command_line_help)
    return {"parallel_read_safe": True}
