import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import embedq_core
import embedq_plugins


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., str]:
    """Run code in a fresh interpreter, with variables added to its environment; what it printed."""
    path = os.pathsep.join(str(Path(package.__path__[0]).parent) for package in (embedq_core, embedq_plugins))

    def run(code: str, **variables: str) -> str:
        environment = {**os.environ, "PYTHONPATH": path, **variables}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    return run
