"""Metadata are compared and put back; a repair refuses before it changes anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import volseg
from volseg.errors import ConfigError
from volseg.testing.targets import make_target, noise_record

if TYPE_CHECKING:
    from pathlib import Path


def verified(target: Path, **options: Any) -> volseg.VerifyReport:
    return volseg.verify(str(target), cluster="serial", **options)


def test_other_levels_attributes_and_forms_of_the_same_metadata_are_no_fault(target: Path) -> None:
    level = target / "1"
    level.mkdir()
    (level / "zarr.json").write_text((target / "0" / "zarr.json").read_text())
    document = json.loads((target / "zarr.json").read_text())
    document["attributes"]["mine"] = 1
    scale = {"path": "1", "coordinateTransformations": [{"type": "scale", "scale": [30.0, 12.0, 12.0]}]}
    document["attributes"]["ome"]["multiscales"][0]["datasets"].append(scale)
    (target / "zarr.json").write_text(json.dumps(document))
    array = json.loads((target / "0" / "zarr.json").read_text())
    (target / "0" / "zarr.json").write_text(json.dumps(dict(sorted(array.items()))))
    report = verified(target)
    assert report.sound, report.damaged
    assert not report.warnings


def test_a_repair_of_metadata_keeps_what_others_added(target: Path) -> None:
    document = json.loads((target / "zarr.json").read_text())
    document["attributes"]["mine"] = 1
    multiscale = document["attributes"]["ome"]["multiscales"][0]
    multiscale["datasets"].append({"path": "1", "coordinateTransformations": []})
    (target / "1").mkdir()
    (target / "1" / "zarr.json").write_bytes((target / "0" / "zarr.json").read_bytes())
    document["attributes"]["ome"]["multiscales"].append({"name": "another"})
    document["attributes"]["ome"]["omero"] = {"channels": []}
    wanted = json.dumps(document)
    multiscale["axes"][0]["unit"] = "micrometer"
    (target / "zarr.json").write_text(json.dumps(document))
    report = verified(target, repair=True)
    assert report.sound
    assert report.repaired is not None
    assert report.repaired.metadata == ("zarr.json",)
    assert json.loads((target / "zarr.json").read_text()) == json.loads(wanted)


@pytest.mark.parametrize("consolidated", [False, True])
def test_metadata_that_readers_prefer_are_compared_too(target: Path, consolidated: bool) -> None:
    document, array = (json.loads((target / name).read_text()) for name in ("zarr.json", "0/zarr.json"))
    changed = array | {"fill_value": 7} if consolidated else array
    document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": {"0": changed}}
    (target / "zarr.json").write_text(json.dumps(document))
    report = verified(target)
    assert report.sound is not consolidated
    assert not consolidated or "consolidated metadata of 0" in report.damaged["metadata"].examples[0].reason


def test_names_of_channels_are_compared(tmp_path: Path) -> None:
    target = make_target(tmp_path / "t.zarr", noise_record((1, 16, 16), (1, 16, 16), classes=("cell", "membrane")))
    text = (target / "zarr.json").read_text()
    (target / "zarr.json").write_text(text.replace('"label": "cell"', '"label": "nucleus"'))
    assert "other channel names" in verified(target).damaged["metadata"].examples[0].reason
    assert verified(target, repair=True).sound
    assert (target / "zarr.json").read_text() == text


def test_a_repair_asks_for_credentials_that_are_not_stored(tmp_path: Path) -> None:
    record = noise_record()
    source = record.source.model_copy(update={"location": "https://***@host/raw.zarr"})
    target = make_target(tmp_path / "t.zarr", record.model_copy(update={"source": source}))
    (target / "0" / "c" / "0" / "0" / "0").unlink()
    with pytest.raises(ConfigError, match="credentials are not stored; give it with --source"):
        verified(target, repair=True)


def test_a_repair_without_source_or_model_refuses_before_it_changes_anything(target: Path) -> None:
    (target / "0" / "c" / "0" / "0" / "0").unlink()
    (target / "0" / "zarr.json").unlink()
    with pytest.raises(ConfigError, match=r"model /models/noise.safetensors is gone; give its new place with --model"):
        verified(target, repair=True)
    assert not (target / "0" / "zarr.json").exists()
