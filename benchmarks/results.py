"""What is measured, as values a round, and how it is shown: medians with their spread, each beside its baseline."""

import statistics
from collections.abc import Sequence
from typing import Literal

import msgspec
from rich.console import Console
from rich.table import Table

BUSY: float = 0.9  # of one core: whoever is above it alone was the bottleneck


class Target(msgspec.Struct, frozen=True):
    """What we want: the value or its ratio to the baseline, `bound` or more (or, with `is_ceiling`, or less)."""

    of: Literal["value", "ratio"]
    bound: float
    is_ceiling: bool = False

    def text(self) -> str:
        """For the table."""
        bound = percent(self.bound) if self.of == "ratio" else number(self.bound)
        return f"{'≤' if self.is_ceiling else '≥'} {bound}"


class Row(msgspec.Struct, kw_only=True):
    """One line of the table. `values` and `baseline_values` hold one figure a round; rounds alternate, so they pair.

    `cpu`: (server, load) as shares of one core, when both were watched.
    """

    name: str
    unit: str
    values: list[float]
    baseline: str = ""
    baseline_values: list[float] = []
    ratio_values: list[float] = []
    target: Target | None = None
    cpu: list[tuple[float, float]] = []
    note: str = ""

    def ratios(self) -> list[float]:
        """Value to baseline, a round."""
        if self.ratio_values:
            return self.ratio_values
        return [value / base for value, base in zip(self.values, self.baseline_values, strict=False) if base]

    def verdict(self) -> str:
        """Whether the target is reached, or by how much it is missed."""
        if self.target is None:
            return ""
        values = self.values if self.target.of == "value" else self.ratios()
        if not values:
            return "not measured"
        reached = statistics.median(values)
        if (reached <= self.target.bound) if self.target.is_ceiling else (reached >= self.target.bound):
            return "reached"
        if not self.target.bound:
            return f"missed: {number(reached)}"
        off = reached / self.target.bound
        return f"{off:.1f}x too much" if self.target.is_ceiling else f"{off:.0%} of the target"

    def load_was_the_bottleneck(self) -> bool:
        """The load generator used up its core and the server did not: the figure is a lower bound."""
        if not self.cpu:
            return False
        server, load = (statistics.median(shares) for shares in zip(*self.cpu, strict=True))
        return load >= BUSY > server


def number(value: float) -> str:
    """Three significant digits, thousands separated."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percent(value: float) -> str:
    """A ratio."""
    return f"{value:.0%}"


def spread(values: Sequence[float], show: Literal["number", "percent"] = "number") -> str:
    """Median, and minimum to maximum if there is more than one value."""
    form = number if show == "number" else percent
    if not values:
        return ""
    middle = form(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({form(min(values))} to {form(max(values))})"


def show(console: Console, rows: Sequence[Row], title: str) -> None:
    """The one table, and its notes."""
    table = Table(title=title, title_justify="left", show_lines=False)
    for heading in ("measurement", "median (spread)", "unit", "empty baseline", "ratio", "target", "verdict", "cores"):
        table.add_column(heading, overflow="fold")
    notes: list[str] = []
    for row in rows:
        mark = ""
        note = row.note
        if row.load_was_the_bottleneck():
            note = f"{note} The load generator was the bottleneck: a lower bound.".strip()
        if note:
            if note not in notes:
                notes.append(note)
            mark = f" [{notes.index(note) + 1}]"
        base = f"{spread(row.baseline_values)} {row.baseline}".strip()
        cores = (
            " / ".join(f"{statistics.median(shares):.2f}" for shares in zip(*row.cpu, strict=True)) if row.cpu else ""
        )
        table.add_row(
            f"{row.name}{mark}".replace("[", r"\["),
            spread(row.values),
            row.unit,
            base,
            spread(row.ratios(), "percent"),
            row.target.text() if row.target else "",
            row.verdict(),
            cores,
        )
    console.print(table)
    console.print("cores: what server / load generator used of one core each; spread: lowest to highest round.")
    for place, note in enumerate(notes, 1):
        console.print(rf"\[{place}] {note}")


BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def markdown(rows: Sequence[Row], title: str) -> str:
    """The table as Markdown."""
    lines = [
        title,
        "",
        "| measurement | median (spread) | unit | baseline | ratio | target | verdict |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        base = f"{spread(row.baseline_values)} {row.baseline}".strip()
        target = row.target.text() if row.target else ""
        mark = " (load generator was the bottleneck)" if row.load_was_the_bottleneck() else ""
        cells = (
            row.name + mark,
            spread(row.values),
            row.unit,
            base,
            spread(row.ratios(), "percent"),
            target,
            row.verdict(),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def put_into(page: str, figures: str) -> str:
    """`page` with what stands between its two marks replaced."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{before}{begin}\n{figures}\n{end}{after}"
