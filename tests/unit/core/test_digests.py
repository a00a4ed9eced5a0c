import hashlib

from hypothesis import given
from hypothesis import strategies as st
from llm import Collection

from embedq_core.digests import DIGEST_BYTES, content_hash, content_hashes


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_text_is_hashed_as_utf_8_and_equals_the_bytes_that_spell_it(text: str) -> None:
    assert (
        content_hash(text) == content_hash(text.encode()) == hashlib.md5(text.encode(), usedforsecurity=False).digest()
    )


def test_a_digest_has_its_stated_length() -> None:
    assert len(content_hash(b"")) == DIGEST_BYTES


def test_the_digest_is_the_one_that_llm_stores() -> None:
    assert content_hash("my happy hound") == Collection.content_hash("my happy hound")


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])) | st.binary()))
def test_many_are_hashed_as_each_is(contents: list[str | bytes]) -> None:
    assert content_hashes(contents) == [content_hash(content) for content in contents]
