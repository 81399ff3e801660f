"""What a page shows of a report: words, pictures, and the numbers that its script draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from keras_residual._json import finite
from keras_residual.xray.health import Findings, Health, healths, verdict
from keras_residual.xray.page.by_depth import by_depth
from keras_residual.xray.page.numbers_in_words import number, place, plain
from keras_residual.xray.quantities import QUANTITIES
from keras_residual.xray.quantities.chart import Chart, DepthChart
from keras_residual.xray.quantities.quantity import Quantity, is_number
from keras_residual.xray.rules import RULES
from keras_residual.xray.stages import Stage, shape_of, stages

CHAPTERS = {
    "learning": "Does every block learn?",
    "signal": "What becomes of the input on its way?",
    "blocks": "What does each block do?",
    "numbers": "Are units or numbers lost?",
    "whole": "The net as a whole",
}
"""The parts of the page, in order."""

KINDS = {
    "residual": "residual block: its branch is added to its shortcut",
    "stack": "residual block of a stack",
    "add": "sum of a branch and a shortcut",
    "concatenate": "joins a branch to a shortcut, side by side",
    "layer": "layer without a shortcut",
}
"""What the kinds of block are."""

MOST_STAGE_NAMES = 12
MOST_LARGE = 80

Column = list[float | None]


class Content:
    """All that a template needs.

    Args:
        report: What is shown.
        earlier: An earlier report of the same net, drawn beside it; one of other blocks is left out.
        earlier_name: What the page calls the earlier time.
    """

    def __init__(self, report: Findings, earlier: Findings | None = None, earlier_name: str = "earlier") -> None:
        self.earlier_name = earlier_name
        self.blocks = report.blocks
        self.model = report.model
        self.advice = report.advice
        self.names = [str(block["name"]) for block in self.blocks]
        same = earlier is not None and [block["name"] for block in earlier.blocks] == [b["name"] for b in self.blocks]
        self.earlier = earlier if same else None
        self.health: list[Health] = healths(self.blocks, self.model, self.advice)
        self.level, self.verdict = verdict(self.advice, self.health)
        self.in_words = {rule.name: rule.in_words for rule in RULES}
        self.stages: list[Stage] = stages(self.blocks)
        shown = (q for q in QUANTITIES if q.label and q.dtype in (None, self.model.get("dtype")))
        self.shown = [quantity for quantity in shown if self._has(quantity.key)]

    # --- For the template ---------------------------------------------------------------------------------------------

    @property
    def facts(self) -> str:
        """What was looked at, and how."""
        model, count = self.model, self.model.get("connections") or 0
        what = f"{count} residual connection{'s' * (count != 1)}" if count else "layers without a residual connection"
        parts = [what if count else f"{len(self.blocks)} {what}"]
        if model.get("parameters") is not None:
            parts.append(f"{model['parameters']:,} weights")
        mode = ", as in training" if model.get("training", True) else ", as in use"
        return f"{', '.join(parts)}. Looked at with one batch of {model.get('batch')} examples{mode}."

    @property
    def many(self) -> bool:
        """Whether the blocks are too many to be drawn large."""
        return len(self.blocks) > MOST_LARGE

    @property
    def stage_names(self) -> bool:
        """Whether the stages are few enough to be named."""
        return 1 < len(self.stages) <= MOST_STAGE_NAMES

    @property
    def counts(self) -> dict[str, int]:
        """Number of blocks by level of health."""
        levels = [health.level for health in self.health]
        return {level: levels.count(level) for level in dict.fromkeys(levels)}

    @property
    def first_picked(self) -> int:
        """Index of the block whose numbers are shown first: one that is ill, if any is, else one that is unusual."""
        odd = (i for i, health in enumerate(self.health) if health.odd)
        return next((i for i, health in enumerate(self.health) if health.named), next(odd, 0))

    def index_of(self, name: str) -> int | None:
        """Returns the index of the first block of a name."""
        return self.names.index(name) if name in self.names else None

    @property
    def pictures(self) -> list[Chart]:
        """The pictures in the order of the page."""
        by_block = [self._picture(q, q.chart) for q in self.shown if q.chart is not None and self._is_drawn(q, q.chart)]
        model = finite(dict(self.model))
        whole = [q.draw(model[q.key], model, self.names) for q in QUANTITIES if q.draw is not None and model.get(q.key)]
        return by_block + whole

    # --- For the script -----------------------------------------------------------------------------------------------

    def data(self, pictures: Sequence[Chart]) -> dict[str, Any]:
        """Returns what the script of the page draws, in plain lists and dictionaries that JSON has."""
        keys = [quantity.key for quantity in self.shown]
        keys += [key for q in self.shown if (key := _beside(q)) and key not in keys]
        return {
            "names": self.names,
            "kinds": [KINDS.get(block["kind"], block["kind"]) for block in self.blocks],
            "shapes": [shape_of(block) for block in self.blocks],
            "levels": [health.level for health in self.health],
            "advice": {str(i): self._entries(i) for i, health in enumerate(self.health) if health.named},
            "suffers": {
                str(i): [self.in_words[name] for name in health.suffers]
                for i, health in enumerate(self.health)
                if health.suffers and not health.named
            },
            "odd": {str(i): [q.key for q in health.odd] for i, health in enumerate(self.health) if health.odd},
            "earlier_name": self.earlier_name,
            "quantities": [
                {"key": q.key, "label": q.label, "usual": q.usual, "percent": q.percent} for q in self.shown
            ],
            "now": {key: self._column(self.blocks, key) for key in keys},
            "earlier": {} if self.earlier is None else {key: self._column(self.earlier.blocks, key) for key in keys},
            "pictures": {
                picture.key: {
                    "spec": picture.spec,
                    "by_depth": picture.by_depth,
                    **self._fields(picture.key),
                }
                for picture in pictures
            },
            "picked": self.first_picked,
        }

    def _entries(self, index: int) -> list[int]:
        """Returns which advice is about a block: of a rule that names many blocks, that for the first of them."""
        found = []
        for rule in self.health[index].named:
            entries = [i for i, entry in enumerate(self.advice) if entry.rule == rule]
            found.append(next((i for i in entries if self.advice[i].block == self.names[index]), entries[0]))
        return found

    def _fields(self, key: str) -> dict[str, Any]:
        found = next((quantity for quantity in self.shown if quantity.key == key), None)
        if found is None:
            return {}
        log = found.chart is not None and found.chart.log
        return {"beside": _beside(found), "log": log, "percent": found.percent}

    @staticmethod
    def _column(blocks: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
        return [plain(block.get(key)) for block in blocks]

    # --- Pictures -----------------------------------------------------------------------------------------------------

    def _has(self, key: str) -> bool:
        return any(is_number(block.get(key)) for block in self.blocks)

    def _is_drawn(self, quantity: Quantity, chart: DepthChart) -> bool:
        keys = [quantity.key, *(chart.beside or ())[:1]]
        return not chart.only_if_any or any(block.get(key) for key in keys for block in self.blocks)

    def _picture(self, quantity: Quantity, chart: DepthChart) -> Chart:
        values = _values(self.blocks, quantity.key)
        more, legend = [], [("first", quantity.label)]
        if chart.beside:
            more.append(_values(self.blocks, chart.beside[0]))
            legend.append(("second", chart.beside[1]))
        if self.earlier is not None:
            more.append(_values(self.earlier.blocks, quantity.key))
            legend.append(("earlier", self.earlier_name))
        return Chart(
            key=quantity.key,
            title=chart.title,
            words=chart.words,
            here=self._here(quantity, values),
            chapter=chart.chapter,
            spec=by_depth(quantity, chart, values, more, self.stages, self._bands(quantity)),
            legend=tuple(legend) if len(legend) > 1 else (),
            by_depth=True,
        )

    def _bands(self, quantity: Quantity) -> list[tuple[float, float] | None]:
        """Returns the usual range at each block; Nones for a quantity without one."""
        if quantity.band is None:
            return [None] * len(self.blocks)
        return quantity.band.limits(quantity.key, self.blocks, self.model)

    def _here(self, quantity: Quantity, values: Column) -> str:
        known = [(value, i) for i, value in enumerate(values) if value is not None and math.isfinite(value)]
        broken = sum(value is not None and not math.isfinite(value) for value in values)
        lost = f" It is no finite number at {broken} of {len(values)} blocks." if broken else ""
        if not known:
            return f"Here:{lost}" if lost else ""
        (low, at_low), (high, at_high) = min(known), max(known)
        low, high = (number(value, percent=quantity.percent) for value in (low, high))
        if low == high:
            return f"Here it is {low} everywhere.{lost}"
        least, most = (place(self.names, index) for index in (at_low, at_high))
        return f"Here it is least at {least}: {low}, and most at {most}: {high}.{lost}"


def _values(blocks: Sequence[Mapping[str, Any]], key: str) -> Column:
    return [float(block[key]) if is_number(block.get(key)) else None for block in blocks]


def _beside(quantity: Quantity) -> str | None:
    """Returns the key of what is drawn in the picture of a quantity too."""
    return quantity.chart.beside[0] if quantity.chart is not None and quantity.chart.beside else None
