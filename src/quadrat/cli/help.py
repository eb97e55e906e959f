"""How help pages look: plain text in two columns."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

LEFT, WIDTH = 28, 80
OBVIOUS = (None, "False", "()", ".")
"""Defaults that need not be said."""


class Columns:
    """Names on the left, what they mean on the right. The formatters of cyclopts draw boxes, which
    takes 0.1 s, or do not align."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print a group of commands or options."""
        rows = [
            (f"  {', '.join(e.display_labels_with_metavar)}", _meaning(e)) for e in panel.entries
        ]
        if not rows:
            return
        left = min(LEFT, max(len(names) for names, _ in rows) + 2)
        lines = [f"{panel.title}:"]
        for names, meaning in rows:
            first, *others = textwrap.wrap(meaning, WIDTH - left) or [""]
            if len(names) > left - 2:
                lines.append(names)
                names = ""
            lines += [names.ljust(left) + first, *(" " * left + line for line in others)]
        self._print(console, "\n".join(line.rstrip() for line in lines) + "\n")

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Print the line that shows the order of the arguments."""
        self._print(console, f"usage: {usage}".strip() + "\n")

    def render_description(
        self, console: Console, options: ConsoleOptions, description: Any
    ) -> None:
        """Print what the command does."""
        self._print(console, f"{description.primary_renderable}".rstrip() + "\n")

    @staticmethod
    def _print(console: Console, text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def _meaning(entry: HelpEntry) -> str:
    """The description with choices, default, and whether it is needed."""
    parts = [str(getattr(entry.description, "primary_renderable", entry.description or ""))]
    if entry.choices:
        parts.append(f"[{', '.join(entry.choices)}]")
    if entry.default not in OBVIOUS:
        parts.append(f"[{entry.default}]")
    if entry.required:
        parts.append("(needed)")
    return " ".join(" ".join(parts).split())
