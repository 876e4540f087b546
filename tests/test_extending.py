"""The package that docs/extending.md shows: built, installed, trained, and predicted without seams."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
PACKAGE = ROOT / "docs" / "examples" / "volseg-example"
FILES = [
    path
    for path in sorted(PACKAGE.rglob("*"))
    if path.suffix in (".py", ".toml") and path.name != "__init__.py" and "build" not in path.parts
]

RUN = """
import numpy as np
import volseg
from volseg.testing import assert_no_seams
from volseg.testing.factories import stripes

raw, membrane = stripes((6, 64, 64), 1)
np.save("raw.npy", raw)
np.save("labels.npy", np.where(membrane, 0, 255).astype(np.uint8))
volseg.train("run.toml", overrides=["fit.steps=8", "patches.workers=0", "fit.device=cpu"])
model = volseg.load_model("runs/blurnet/model.safetensors")
card = model.card
assert (card.network, card.normalization.mode) == ("blurnet", "robust")
assert (card.footprint.stride, card.footprint.exact_halo()) == ((1, 2, 2), (0, 6, 6)), card.footprint
median = np.median(raw[0])
scale = 1.4826 * np.median(np.abs(raw[0] - median))
np.testing.assert_allclose(model.normalize(raw)[0], (raw[0] - median) / scale, rtol=1e-5, atol=1e-6)
assert_no_seams("runs/blurnet/model.safetensors", raw[:2], blocks=[(1, 22, 38)])
"""


def run(*command: str, cwd: Path, path: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run([sys.executable, *command], cwd=cwd, env=environment, text=True, capture_output=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed package."""
    folder = tmp_path_factory.mktemp("extending")
    # Without hatchling in this environment, pip fetches it into one of its own.
    isolated = ["--no-build-isolation"] if find_spec("hatchling") else []
    path = os.environ.get("PYTHONPATH", "")
    for words in (
        ["wheel", "--quiet", "--no-deps", *isolated, "--wheel-dir", str(folder), str(PACKAGE)],
        ["install", "--quiet", "--no-deps", "--no-index", "--find-links", str(folder), "--target",
         str(folder / "site"), "volseg-example"],
    ):  # fmt: skip
        done = run("-m", "pip", "--disable-pip-version-check", *words, cwd=folder, path=path)
        assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_the_page_shows_each_file_of_the_package(file: Path) -> None:
    name = file.relative_to(PACKAGE).as_posix()
    (shown,) = re.findall(rf"^`{re.escape(name)}`:\n\n```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert shown == file.read_text()


def test_the_package_trains_and_predicts_without_seams(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text((PACKAGE / "run.toml").read_text())
    done = run("-c", RUN, cwd=tmp_path, path=os.pathsep.join([str(installed), str(ROOT)]))
    assert done.returncode == 0, done.stderr
    without = run("-m", "volseg", "models", "runs/blurnet/model.safetensors", cwd=tmp_path, path=str(ROOT))
    assert without.returncode == 1
    assert "there is no network 'blurnet'; choose from" in without.stderr
    assert "install the package that provides it" in without.stderr
