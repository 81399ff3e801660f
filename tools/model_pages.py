"""Writes what the documentation pages take from the catalogue: `docs/models.md`, and the names in `docs/migrating.md`.

.venv/bin/python tools/model_pages.py
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from keras_residual.models.catalog import FAMILIES
from keras_residual.models.catalog.aliases import ALIASES
from keras_residual.models.facts import PretrainedWeights, counted, pretrained_tags, pretrained_weights

DOCS = Path(__file__).parents[1] / "docs"

TITLES = {
    "resnet": "ResNet, ResNeXt, Wide ResNet, SE-ResNet, ECA-ResNet, ResNet-RS",
    "resnetv2": "ResNet v2 and Big Transfer",
    "resnest": "ResNeSt",
    "res2net": "Res2Net",
    "sknet": "SKNet",
    "senet": "SENet as Caffe had it",
    "keras": "keras.applications",
    "cifar": "Small pictures",
    "resnet3d": "Volumes and clips",
    "other": "Other data",
}
SOURCES = {"torchvision": "torchvision", "keras_hub": "KerasHub", "keras_applications": "keras.applications"}

HEAD = """<!-- Written by tools/model_pages.py from the catalogue. -->

# Models

`kr.create_model(name)` builds each of these {names} networks, and `kr.create_model("name.tag")` also loads pretrained
weights: {sets} sets are known, of which {elsewhere} are not on the Hugging Face Hub and must be downloaded first.
`keras-residual show NAME` lists for each set the pictures that it expects, its licence, and its location.

- **parameters**: weights that training changes, without the statistics of norms.
- **GMACs**: 10⁹ multiply-adds of convolutions and dense layers for one input of the size in the next column.
  torchvision publishes the same numbers; timm also counts two operations for each output value of a batch norm, about
  0.6 % in total.
- **top-1**: the best accuracy that timm publishes for any of the weights, in per cent on the validation set of
  ImageNet-1k, and the picture size at which it was measured. It was not measured here.
- **weights**: tags of the pretrained sets, the default first.

[`costs`](api/models.md#costs) counts the same for your own model.
"""


def main() -> None:
    """Writes the pages."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


def pages() -> dict[Path, str]:
    """Returns the text of each page."""
    migrating = DOCS / "migrating.md"
    return {
        DOCS / "models.md": models_page(),
        migrating: with_aliases(migrating.read_text(encoding="utf-8")),
    }


def models_page() -> str:
    """Returns the page of all models."""
    names = [name for family in FAMILIES.values() for name in family]
    sets = [pretrained_weights(f"{name}.{tag}") for name in names for tag in pretrained_tags(name)]
    elsewhere = sum(weights.hf_hub_id is None for weights in sets)
    parts = [HEAD.format(names=len(names), sets=len(sets), elsewhere=elsewhere)]
    for family, members in FAMILIES.items():
        parts.append(f"## {TITLES[family]}\n\n{family_table(members)}")
    return "\n".join(parts)


def family_table(names: Iterable[str]) -> str:
    """Returns the table of a family; without pretrained weights it has fewer columns."""
    names = list(names)
    known = any(pretrained_tags(name) for name in names)
    titles = ["name", "parameters", "GMACs", "at", *(["top-1", "at", "weights", "licence"] if known else [])]
    rows = [
        [f"`{name}`", *cost_cells(name), *(weight_cells(name) if known else [])]
        for name in names  # as the catalogue has them, which is by kind
    ]
    return table(titles, rows)


def cost_cells(name: str) -> list[str]:
    """Returns parameters, multiply-adds and size."""
    found = counted(name)
    gmacs = f"{found.costs.macs / 1e9:.2f}" if found.costs.macs >= 1e7 else f"{found.costs.macs / 1e9:.1g}"
    return [f"{found.costs.params:,}", gmacs, found.size]


def weight_cells(name: str) -> list[str]:
    """Returns what is known of all pretrained weights of a network."""
    tags = pretrained_tags(name)
    sets: list[PretrainedWeights] = [pretrained_weights(f"{name}.{tag}") for tag in tags]
    best = max((result for weights in sets for result in weights.results), key=lambda r: r.top1, default=None)
    licences = dict.fromkeys(weights.license or "not stated" for weights in sets)
    return [
        f"{best.top1:.2f}" if best else "",
        str(best.size) if best else "",
        ", ".join(f"`{tag}`" for tag in tags),
        ", ".join(licences),
    ]


def with_aliases(page: str) -> str:
    """Returns a page with the table of names of each library between its marks."""
    for source in SOURCES:
        rows = []
        for alias in ALIASES.values():
            if alias.source != source:
                continue
            same = "network and weights" if alias.same_weights else "network" if alias.same_architecture else "neither"
            rows.append([f"`{alias.name}`", f"`{alias.target}`", same, alias.note])
        columns = ["name there", "name here", "the same", "what differs"]
        if not any(row[-1] for row in rows):
            columns, rows = columns[:-1], [row[:-1] for row in rows]
        begin, end = f"<!-- names of {source}, by tools/model_pages.py -->", f"<!-- end of names of {source} -->"
        if begin not in page or end not in page:
            raise SystemExit(f"docs/migrating.md lacks {begin!r} or {end!r}.")
        head, _, rest = page.partition(begin)
        page = f"{head}{begin}\n\n{table(columns, rows)}\n{end}{rest.partition(end)[2]}"
    return page


def table(titles: list[str], rows: list[list[str]]) -> str:
    """Returns a table of Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    main()
