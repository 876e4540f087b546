"""Pictures are drawn without matplotlib's remarks on folders and fonts."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

DRAW = """
from pathlib import Path
import numpy as np
from volseg.plots.curves import save_training_curves
from volseg.plots.panel import save_panel
save_panel(Path("panel.png"), [("a", np.eye(9))])
save_training_curves(Path("curves.png"), [])
"""


def test_a_home_that_cannot_be_written_is_not_mentioned(tmp_path: Path) -> None:
    """With an empty cache, matplotlib would also say that it builds its fonts."""
    (tmp_path / "file").write_text("no folder")
    environment = {**os.environ, "MPLCONFIGDIR": str(tmp_path / "file" / "below")}
    done = subprocess.run(
        [sys.executable, "-c", DRAW], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert done.stderr == done.stdout == ""
    assert (tmp_path / "panel.png").exists()
