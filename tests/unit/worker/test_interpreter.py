"""How Python is set while a worker runs."""

import gc
import sys

import pytest

from embedq_core.errors import EmbedqError
from embedq_worker.interpreter import tuned


def test_python_is_set_as_before_when_the_worker_has_failed() -> None:
    before = gc.get_threshold(), sys.getswitchinterval(), gc.get_freeze_count()

    def fail() -> None:
        with tuned():
            assert gc.get_threshold()[0] > before[0][0]
            assert sys.getswitchinterval() < before[1]
            raise EmbedqError

    with pytest.raises(EmbedqError):
        fail()
    assert (gc.get_threshold(), sys.getswitchinterval(), gc.get_freeze_count()) == before
