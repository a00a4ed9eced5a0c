"""How the program begins, where its surroundings are not as they should be."""

import sys
from pathlib import Path

import pytest

from embedq.__main__ import _open_streams, main
from embedq_core.errors import SettingsError
from embedq_core.settings import default_model_file, load_settings
from embedq_producer.models import default_model_id


def test_streams_that_were_closed_give_and_take_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    _open_streams()
    with sys.stdin, sys.stdout, sys.stderr:
        assert sys.stdin.readline() == ""
        print("nobody reads this")
        print("nor this", file=sys.stderr)


def test_a_directory_that_is_gone_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def gone() -> Path:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "cwd", gone)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "embedq: the directory in which this was started is gone: go to another\n"


def test_a_default_model_that_is_no_text_is_said() -> None:
    default_model_file().parent.mkdir(parents=True)
    default_model_file().write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="is not text: 'embedq models default MODEL' writes it anew"):
        default_model_id(load_settings())
