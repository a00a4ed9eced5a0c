import os
from collections.abc import Callable
from pathlib import Path

import pytest

from embedq_core.errors import SourceError, UsageError
from embedq_core.items import Item
from embedq_producer.readers import FilesSource, RowOptions, read_corpus

Read = Callable[..., tuple[list[Item], list[str]]]


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    root = Path("docs")
    (root / "b/c").mkdir(parents=True)
    (root / "b/two.md").write_bytes(b"Two\r\nlines\rin\nall")
    (root / "a.md").write_bytes("\ufeffOne é".encode())
    (root / "b/c/three.md").write_bytes(b"caf\xe9")
    (root / "b/other.txt").write_text("Other")
    (root / "dir.md").mkdir()
    return root


def files(*directories: tuple[Path, str], binary: bool = False) -> FilesSource:
    return FilesSource(directories, binary)


def test_ids_are_relative_paths_in_order_and_texts_are_as_they_are(read: Read, docs: Path) -> None:
    items, errors = read(files((docs, "**/*.md")))
    assert items == [Item("a.md", "One é"), Item("b/c/three.md", "café"), Item("b/two.md", "Two\r\nlines\rin\nall")]
    assert errors == []


def test_a_pattern_that_ends_in_two_stars_means_all_files(read: Read, docs: Path) -> None:
    items, _ = read(files((docs, "b/**")))
    assert [item.id for item in items] == ["b/c/three.md", "b/other.txt", "b/two.md"]


def test_several_directories_follow_one_another_and_nothing_comes_twice(read: Read, docs: Path) -> None:
    items, _ = read(files((docs / "b", "*.txt"), (docs, "*.md"), (docs, "a*")))
    assert [item.id for item in items] == ["other.txt", "a.md"]


def test_prefix_and_prepend_apply(read: Read, docs: Path) -> None:
    assert read(files((docs / "b", "*.txt")), prefix="p/", prepend=": ")[0] == [Item("p/other.txt", ": Other")]


def test_binary_reads_bytes(read: Read, docs: Path) -> None:
    assert read(files((docs / "b", "*.txt"), binary=True))[0] == [Item("other.txt", b"Other")]


def test_encodings_are_tried_in_order(read: Read, docs: Path) -> None:
    assert read(files((docs / "b/c", "*")), encodings=("cp1251",))[0] == [Item("three.md", "cafй")]
    items, errors = read(files((docs / "b/c", "*")), encodings=("ascii", "utf-8"))
    assert items == []
    assert len(errors) == 1
    assert errors[0].startswith("docs/b/c/three.md: isn't text in ascii or utf-8 (byte 0xe9 at 3): name its")


def test_a_codec_that_fails_in_its_own_way_costs_one_item(read: Read, docs: Path) -> None:
    (docs / "b/c/three.md").write_bytes(b"xn--" + b"9" * 80)
    assert "isn't text in idna" in read(files((docs / "b/c", "*")), encodings=("idna",))[1][0]


def test_utf_16_with_its_mark_is_read(read: Read, docs: Path) -> None:
    (docs / "b/c/three.md").write_bytes("Drei é".encode("utf-16"))
    assert read(files((docs / "b/c", "*")))[0] == [Item("three.md", "Drei é")]


def test_a_picture_is_no_text(read: Read, docs: Path) -> None:
    (docs / "b/c/three.md").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    items, errors = read(files((docs / "b/c", "*")))
    assert (items, len(errors)) == ([], 1)
    assert "isn't text, it holds NUL bytes: use --binary" in errors[0]


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "the content is empty"), (b"x" * 11, "is larger than 10 bytes")],
)
def test_empty_and_oversized_files_are_reported(read: Read, docs: Path, content: bytes, problem: str) -> None:
    (docs / "a.md").write_bytes(content)
    items, errors = read(files((docs, "**/*e.md"), (docs, "a.md")), item_bytes=10)
    assert [item.id for item in items] == ["b/c/three.md"]
    assert errors[0].startswith("docs/a.md")
    assert problem in errors[0]


def test_an_oversized_file_is_not_opened(read: Read, docs: Path) -> None:
    with (docs / "a.md").open("wb") as file:
        file.truncate(1 << 40)
    assert "is larger than" in read(files((docs, "a.md")))[1][0]


def test_a_file_that_goes_away_or_may_not_be_read_costs_one_item(docs: Path) -> None:
    errors: list[object] = []
    reader = read_corpus(files((docs, "**/*.md")), RowOptions(), errors.append)
    (docs / "a.md").unlink()
    assert [item.id for item in reader] == ["b/c/three.md", "b/two.md"]
    assert [str(error) for error in errors] == ["docs/a.md: can't be read: no such file or directory"]
    assert reader.position == reader.total


def test_links_out_of_the_directory_and_to_nothing_are_reported(read: Read, docs: Path) -> None:
    Path("secret.md").write_text("secret")
    Path("outside").mkdir()
    Path("outside/in.md").write_text("secret")
    (docs / "b/out.md").symlink_to(Path("../../secret.md"))
    (docs / "b/gone.md").symlink_to("nothing")
    (docs / "b/loop.md").symlink_to("loop.md")
    (docs / "b/inside.md").symlink_to("two.md")
    (docs / "link").symlink_to(Path("../outside"), target_is_directory=True)
    items, errors = read(files((docs / "b", "*.md"), (docs, "*/in.md")))
    assert [item.id for item in items] == ["inside.md", "two.md"]
    assert errors[:1] + errors[2:] == [
        "docs/b/gone.md: can't be read: points to nothing",
        "docs/b/out.md: is not followed: it is a link out of the directory",
        "docs/link/in.md: is not followed: it is a link out of the directory",
    ]
    assert errors[1].startswith("docs/b/loop.md: can't be read")


def test_what_is_no_regular_file_is_never_opened(read: Read, docs: Path) -> None:
    os.mkfifo(docs / "b/c/pipe")
    assert read(files((docs / "b/c", "p*"))) == ([], ["docs/b/c/pipe: is no regular file"])


def test_the_directory_itself_may_be_a_link(read: Read, docs: Path) -> None:
    Path("link").symlink_to(docs, target_is_directory=True)
    assert read(files((Path("link"), "*.md")))[0] == [Item("a.md", "One é")]


def test_a_name_that_is_no_text_costs_one_item(read: Read, docs: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    (docs / "b/c" / name).write_text("x")
    items, errors = read(files((docs / "b/c", "*")))
    assert [item.id for item in items] == ["three.md"]
    assert errors[0].endswith("the id holds a lone surrogate (U+DCE9 at character 3)")


def test_nothing_found_is_no_error(read: Read, docs: Path) -> None:
    assert read(files((docs, "*.rst"))) == ([], [])


def test_the_size_is_known_without_reading(docs: Path) -> None:
    assert files((docs, "**/*.md")).size() == 17 + 9 + 4
    assert files((docs, "**/*.md"), (docs, "a*")).describe() == "docs **/*.md, docs a*"


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("/etc/*", "leads out of the directory"),
        ("../*", "leads out of the directory"),
        ("a/../../*", "leads out of the directory"),
        ("C:\\x", "leads out of the directory"),
        ("", "is no pattern of files"),
        (".", "is no pattern of files"),
        ("..", "is no pattern of files"),
        ("a\0", "is no pattern of files"),
        ("**.md", "must stand alone between slashes"),
    ],
)
def test_a_pattern_that_makes_no_sense_is_said(pattern: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        files((Path(), pattern))


@pytest.mark.parametrize(("name", "problem"), [("nothing", "doesn't exist"), ("docs/a.md", "is not a directory")])
@pytest.mark.usefixtures("docs")
def test_a_directory_that_is_none_is_said_before_anything_is_read(name: str, problem: str) -> None:
    with pytest.raises(SourceError, match=f"^{name} {problem}$"):
        read_corpus(files((Path(name), "*")), RowOptions(), lambda _: None)


def test_a_directory_that_may_not_be_read_is_said(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(SourceError, match=r"^docs can't be read: permission denied$"):
        read_corpus(files((docs, "*")), RowOptions(), lambda _: None)


def test_binary_with_encodings_is_asked_wrongly(read: Read, docs: Path) -> None:
    with pytest.raises(UsageError, match="binary files have no encoding"):
        read(files((docs, "*"), binary=True), encodings=("utf-8",))
