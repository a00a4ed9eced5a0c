import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from embedq_core.errors import RowError, SourceError, UsageError
from embedq_core.items import Item
from embedq_producer.readers import FileSource, FilesSource, RowOptions, Source, SqlSource, read_corpus

Read = Callable[..., tuple[list[Item], list[str]]]


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("id,content\na,A\n,B\n")
    Path("b.json").write_text('[{"id": "b", "content": "B"}, oops]')
    Path("c.jsonl").write_text('{"id": "c", "content": "C"}\n')
    Path("docs").mkdir()
    Path("docs/d.md").write_text("D")
    return tmp_path


SOURCES: tuple[Source, ...] = (
    FileSource(Path("a.csv")),
    FileSource(Path("b.json")),
    FileSource(Path("c.jsonl")),
    FilesSource(((Path("docs"), "*.md"),)),
    SqlSource("select 'e' as id, 'E' as content"),
)


@pytest.mark.usefixtures("docs")
def test_sources_follow_one_another_and_one_that_breaks_off_is_said_at_the_end() -> None:
    errors: list[RowError] = []
    items: list[str] = []
    reader = read_corpus(SOURCES, RowOptions(), errors.append)
    with pytest.raises(SourceError, match=r"^b\.json row 2 \(line 1\)") as caught:
        items.extend(item.id for item in reader)
    assert items == ["a", "b", "c", "d.md", "e"]
    assert not isinstance(caught.value, RowError)
    assert [str(error) for error in errors] == ["a.csv line 3: the id is empty"]
    assert reader.rejected == 1


@pytest.mark.usefixtures("docs")
def test_strict_ends_at_the_first_row_that_can_not_be_read() -> None:
    items: list[str] = []
    errors: list[RowError] = []
    with pytest.raises(RowError, match=r"^a\.csv line 3: the id is empty$") as caught:
        items.extend(item.id for item in read_corpus(SOURCES, RowOptions(strict=True), errors.append))
    assert (items, errors) == (["a"], [])
    assert (caught.value.where, caught.value.problem) == ("a.csv line 3", "the id is empty")


@pytest.mark.usefixtures("docs")
def test_strict_ends_at_the_first_source_that_breaks_off() -> None:
    with pytest.raises(SourceError, match=r"^b\.json"):
        list(read_corpus(SOURCES[1:], RowOptions(strict=True), lambda _: None))


@pytest.mark.usefixtures("docs")
def test_several_that_break_off_are_all_said() -> None:
    with pytest.raises(SourceError) as caught:
        list(read_corpus((SOURCES[1], SOURCES[2], SOURCES[1]), RowOptions(), lambda _: None))
    assert str(caught.value).count("\n") == 1


@pytest.mark.usefixtures("docs")
def test_what_can_not_be_read_at_all_is_said_before_any_row() -> None:
    with pytest.raises(SourceError, match=r"nothing\.csv doesn't exist"):
        read_corpus((*SOURCES, FileSource(Path("nothing.csv"))), RowOptions(), lambda _: None)


def test_standard_input_twice_is_asked_wrongly() -> None:
    with pytest.raises(UsageError, match="standard input can be read once only"):
        read_corpus((FileSource(None), FileSource(None)), RowOptions(), lambda _: None)


@pytest.mark.usefixtures("docs")
def test_sources_say_what_they_are() -> None:
    described = read_corpus(SOURCES, RowOptions(), lambda _: None).describe()
    assert described == "a.csv, b.json, c.jsonl, docs *.md, SQL"


@pytest.mark.usefixtures("docs")
def test_the_total_is_the_size_of_all_or_unknown() -> None:
    sizes = [Path(name).stat().st_size for name in ("a.csv", "c.jsonl", "docs/d.md")]
    reader = read_corpus((SOURCES[0], SOURCES[2], SOURCES[3]), RowOptions(), lambda _: None)
    assert reader.total == sum(sizes)
    assert reader.position == 0
    positions = [reader.position for _ in reader]
    assert positions == [sizes[0], sizes[0] + sizes[1], sizes[0] + sizes[1]]
    assert reader.position == reader.total
    assert read_corpus(SOURCES, RowOptions(), lambda _: None).total is None


def test_the_position_follows_the_bytes_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl.gz"
    lines = "".join(f'{{"id": {number}, "content": "{hash(str(number))}"}}\n' for number in range(200_000))
    path.write_bytes(gzip.compress(lines.encode(), 1))
    reader = read_corpus(FileSource(path), RowOptions(), lambda _: None)
    positions = [reader.position for _ in reader]
    assert positions == sorted(positions)
    assert 0 < positions[0] < positions[100_000] < path.stat().st_size
    assert positions[-1] == reader.total == path.stat().st_size


def test_a_reader_can_be_read_once_more(read_text: Read) -> None:
    read_text("docs.csv", "id,content\na,A\n")
    reader = read_corpus(FileSource(Path("docs.csv")), RowOptions(), lambda _: None)
    assert list(reader) == list(reader)
    assert reader.position == reader.total


def test_reading_that_is_given_up_closes_the_file(read_text: Read) -> None:
    read_text("docs.csv", "id,content\na,A\nb,B\n")
    for item in read_corpus(FileSource(Path("docs.csv")), RowOptions(), lambda _: None):
        assert item.id == "a"
        break
