from pathlib import Path

from embedq.docstrings import DocstringSource, docstrings
from embedq_producer.readers import RowOptions, read_corpus

SOURCE = '''
"""The module, in a few more words."""

class Public:
    """The class, in a few more words."""

    def method(self):
        """The method, in a few
        more words."""

        def inner():
            """Not reachable by any name."""

    def _private(self):
        """Nobody's business, in a few words."""

async def function():
    """The function, in a few more words."""

def short():
    """Too short."""

def bare(): ...
'''


def test_public_names_with_a_docstring_are_items() -> None:
    items = {item.id: item.content for item in docstrings(SOURCE.encode(), "pkg.mod", file_name="mod.py")}
    assert items == {
        "pkg.mod": "pkg.mod: The module, in a few more words.",
        "pkg.mod.Public": "pkg.mod.Public: The class, in a few more words.",
        "pkg.mod.Public.method": "pkg.mod.Public.method: The method, in a few\nmore words.",
        "pkg.mod.function": "pkg.mod.function: The function, in a few more words.",
    }


def test_what_is_no_python_has_none() -> None:
    assert list(docstrings(b"def (", "x", file_name="x.py")) == []
    assert list(docstrings(b"\0", "x", file_name="x.py")) == []


def test_tests_and_private_modules_are_left_out_and_names_are_unique(tmp_path: Path) -> None:
    for name in ("a.py", "_b.py", "test/c.py", "pkg/__init__.py", "pkg/_d.py", "_pydatetime.py", "datetime.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'"""This is the documentation of {name}."""')
    reader = read_corpus(DocstringSource(tmp_path), RowOptions(), lambda error: None)
    items = {item.id: item.content for item in reader}
    assert items == {
        "a": "a: This is the documentation of a.py.",
        "pkg": "pkg: This is the documentation of pkg/__init__.py.",
        "datetime": "datetime: This is the documentation of _pydatetime.py.",
    }
    assert reader.position == reader.total
