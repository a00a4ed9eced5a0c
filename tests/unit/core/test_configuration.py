"""Which configurations of a model may meet in one collection."""

import pytest

from embedq_core.configuration import (
    Configuration,
    check_querying,
    check_writing,
    configuration_from,
    configuration_text,
)
from embedq_core.errors import ConfigurationMismatch, ModelMismatch

RECORDED: Configuration = {
    "document_prefix": "passage: ",
    "query_prefix": "query: ",
    "revision": "a1",
    "dimensions": 256,
}


def test_a_record_reads_as_it_was_written() -> None:
    configuration = {**RECORDED, "normalize": True, "temperature": 0.5}
    assert configuration_from(configuration_text(configuration)) == configuration


def test_the_same_configuration_may_write_and_ask() -> None:
    check_writing("docs", "m", RECORDED, dict(RECORDED))
    check_querying("docs", "m", RECORDED, dict(RECORDED), by_prefix=False)


@pytest.mark.parametrize(
    ("present", "words"),
    [
        ({**RECORDED, "document_prefix": "doc: "}, 'document_prefix "passage: ", now "doc: "'),
        ({**RECORDED, "query_prefix": ""}, 'query_prefix "query: ", now ""'),
        ({**RECORDED, "dimensions": 128}, "dimensions 256, now 128"),
        ({**RECORDED, "task": "search"}, 'task none, now "search"'),
        ({name: value for name, value in RECORDED.items() if name != "revision"}, 'revision "a1", now none'),
    ],
)
def test_a_writer_with_another_configuration_is_refused_and_told_what_differs(
    present: Configuration, words: str
) -> None:
    with pytest.raises(ConfigurationMismatch) as refused:
        check_writing("docs", "m", RECORDED, present)
    assert isinstance(refused.value, ModelMismatch)
    assert words in str(refused.value)
    assert "'docs'" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_queries_are_refused_only_where_the_record_can_t_be_applied() -> None:
    other_documents = {**RECORDED, "document_prefix": "doc: "}
    other_queries = {**RECORDED, "query_prefix": "search: "}
    check_querying("docs", "m", RECORDED, other_documents, by_prefix=False)
    check_querying("docs", "m", RECORDED, other_queries, by_prefix=True)
    with pytest.raises(ConfigurationMismatch, match="query_prefix"):
        check_querying("docs", "m", RECORDED, other_queries, by_prefix=False)
    with pytest.raises(ConfigurationMismatch, match="revision"):
        check_querying("docs", "m", RECORDED, {**RECORDED, "revision": "a2"}, by_prefix=True)
