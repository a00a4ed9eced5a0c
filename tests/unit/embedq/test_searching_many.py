"""Many queries at once: whose fault it is where their vectors can't be had."""

import pytest

from embedq.search.searching_many import _embedded
from embedq_core.errors import EmbedqError, ModelError, ModelMisconfigured, RateLimited
from embedq_core.items import Item
from embedq_store import Store
from support.models import FaultyModel, raising

QUERIES = [Item(str(number), f"text {number}") for number in range(64)]


@pytest.mark.parametrize("error", [ModelMisconfigured("a wrong key"), RateLimited("slow down", 60)])
async def test_of_a_model_that_can_t_be_used_no_query_is_suspected(error: EmbedqError) -> None:
    def refuse(_: object) -> None:
        raise error

    model = FaultyModel(refuse)
    async with await Store.open() as store:
        found = await store.create_collection("docs", model.model_id)
        with pytest.raises(type(error)) as caught:
            await _embedded(store, found, model, QUERIES, "queries.txt")
    assert caught.value is error
    assert len(model.batches) == 1


async def test_the_query_that_the_model_fails_on_is_named() -> None:
    async with await Store.open() as store:
        found = await store.create_collection("docs", "recording")
        with pytest.raises(ModelError, match=r"queries\.txt, query bad: "):
            await _embedded(store, found, FaultyModel(raising), [*QUERIES, Item("bad", "poison")], "queries.txt")
