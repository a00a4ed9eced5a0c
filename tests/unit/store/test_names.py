"""Names of the package are imported when they are first used."""

import pytest

import embedq_store


def test_every_name_of_the_package_is_there() -> None:
    there = [name for name in embedq_store.__all__ if getattr(embedq_store, name) is not None]
    assert there == sorted(embedq_store.__all__)
    assert set(there) <= set(dir(embedq_store))


def test_a_name_that_is_not_there_is_an_error_that_says_so() -> None:
    with pytest.raises(AttributeError, match="module 'embedq_store' has no attribute 'Stor'"):
        getattr(embedq_store, "Stor")  # noqa: B009 - what a type checker would refuse
