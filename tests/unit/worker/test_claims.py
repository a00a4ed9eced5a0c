"""Two chunks in one process don't both pay for one text."""

import asyncio
import contextlib
import os

from embedq_worker.claims import Claims, ContentKey
from support.waiting import BOUND_SECONDS


def key(text: str) -> ContentKey:
    return False, text.encode()


CAT, DOG = key("cat"), key("dog")


async def test_what_nobody_has_is_claimed() -> None:
    with Claims().claiming("pets") as claim:
        assert claim([CAT, DOG]) == {}


async def test_what_another_has_is_not_claimed_and_its_end_can_be_waited_for() -> None:
    claims = Claims()
    with claims.claiming("pets") as theirs:
        theirs([CAT])
        with claims.claiming("pets") as mine:
            others = mine([CAT, DOG])
            assert list(others) == [CAT]
            assert not others[CAT].is_set()
    assert others[CAT].is_set()


async def test_claims_end_when_the_attempt_fails_too() -> None:
    claims = Claims()
    with contextlib.suppress(KeyError), claims.claiming("pets") as theirs:
        theirs([CAT])
        os.environ["THE_ATTEMPT_FAILS"]
    with claims.claiming("pets") as mine:
        assert mine([CAT]) == {}


async def test_text_of_another_collection_and_bytes_that_spell_it_are_apart() -> None:
    claims = Claims()
    with claims.claiming("pets") as theirs:
        theirs([CAT])
        with claims.claiming("beasts") as mine:
            assert mine([CAT]) == {}
        with claims.claiming("pets") as mine:
            assert mine([(True, b"cat")]) == {}


async def test_what_was_given_up_after_the_look_up_began_is_looked_up_again_at_once() -> None:
    claims = Claims()
    with claims.claiming("pets") as mine:
        # Between this look-up and the claim, another stores the text and ends.
        with claims.claiming("pets") as theirs:
            theirs([CAT])
        others = mine([CAT, DOG])
        assert list(others) == [CAT]
        assert others[CAT].is_set()
    with claims.claiming("pets") as again:
        assert again([CAT]) == {}, "then it can be claimed, in case the other has failed"


async def test_two_that_want_each_other_s_texts_both_end() -> None:
    claims = Claims()
    paid = list[ContentKey]()

    async def chunk(*keys: ContentKey) -> None:
        left = list(keys)
        while left:
            with claims.claiming("pets") as claim:
                left = [each for each in left if each not in paid]
                others = claim(left)
                await asyncio.sleep(0)
                paid.extend(each for each in left if each not in others)
            for event in others.values():
                await event.wait()
            left = list(others)

    async with asyncio.timeout(BOUND_SECONDS):
        await asyncio.gather(*(chunk(*pair) for pair in [(CAT, DOG), (DOG, CAT)] * 20))
    assert sorted(paid) == [CAT, DOG]


async def test_nothing_is_kept_of_claims_that_have_ended() -> None:
    claims = Claims()
    for _ in range(3):
        with claims.claiming("pets") as one, claims.claiming("pets") as other:
            one([CAT])
            other([CAT, DOG])
    assert not claims._claims
    assert not claims._looking
