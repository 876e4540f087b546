"""The page on augmentation shows every key, with its default, and every picture."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from volseg.config.train_tables import AugmentationSettings

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "augmentation.md").read_text()


def _tables() -> list[dict[str, object]]:
    return [tomllib.loads(text)["augmentation"] for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)]


def test_the_first_example_is_the_defaults() -> None:
    assert _tables()[0] == AugmentationSettings().model_dump()


def test_the_other_examples_are_understood() -> None:
    for table in _tables():
        assert AugmentationSettings.model_validate(table).model_fields_set == set(table)


def test_every_key_is_explained_in_words() -> None:
    words = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    assert set(AugmentationSettings.model_fields) <= set(re.findall(r"`(\w+)\b[^`]*`", words))


def test_every_picture_is_shown_and_is_small() -> None:
    pictures = {path.name: path.stat().st_size for path in (DOCS / "images").glob("augmentation-*.png")}
    assert set(pictures) == set(re.findall(r"\(images/(augmentation-\w+\.png)\)", PAGE))
    assert max(pictures.values()) < 150_000
