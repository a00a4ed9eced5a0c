"""What a submission would come to, without submitting it: what the model would be given, and how long that takes."""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from embedq_core.errors import DatabaseMissing, QueueError
from embedq_core.settings import Settings
from embedq_core.text import plural, shown
from embedq_jobs import Measured, measured, open_queue, queue_exists
from embedq_plugins import EmbeddingModel
from embedq_producer.chunks import Cut
from embedq_producer.corpus import open_corpus, split
from embedq_producer.corpus_options import CorpusRequest
from embedq_producer.models import check_binary, choose_model
from embedq_producer.pruning import Pruning, refusal
from embedq_producer.reading import Reading, woken_by_ctrl_c
from embedq_producer.seen import SeenIds
from embedq_producer.splitting import BYTES_A_TOKEN
from embedq_producer.terminal import Figures, RowReport, display, duration
from embedq_store import Incoming, Known, Store, decide

# The latest finished runs of the model, from which its speed is told.
RUNS: Final = 10


@dataclass(slots=True)
class Forecast:
    """What would become of the items of a corpus; grows while it is read.

    `new`, `changed`, `reused` and `unchanged` add up to `items`. `characters`, `bytes` and `tokens` are those of the
    new and the changed. `tokens_estimated` says that some are by a rule of thumb, since the model can't count them.
    `pruned` entries would be removed; None where that is not asked for, or not every row could be read. `prune_refused`
    says why they would not, unless somebody says so: then.
    """

    items: int = 0
    new: int = 0
    changed: int = 0
    reused: int = 0
    unchanged: int = 0
    duplicates: int = 0
    characters: int = 0
    bytes: int = 0
    tokens: int = 0
    tokens_estimated: bool = False
    skipped: int = 0
    pruned: int | None = None
    prune_refused: str | None = None

    @property
    def inputs(self) -> int:
        """Contents that the model would be given."""
        return self.new + self.changed


class Forecaster:
    """Decides what becomes of each chunk, given what the store knows and which contents came before it."""

    def __init__(self, model: EmbeddingModel, contents: SeenIds, *, store: bool) -> None:
        self.forecast = Forecast(tokens_estimated=model.estimates_tokens)
        self._model = model
        self._contents = contents
        self._store = store

    def add(self, piece: Cut, incoming: Sequence[Incoming], known: Known) -> None:
        """Count a chunk. Equal contents count once, in whichever chunks of the corpus they stand."""
        plan, forecast = decide(incoming, known, store=self._store), self.forecast
        first = self._contents.unseen([incoming[index].content_key for index in plan.embedded])
        embedded = [incoming[index].item for index, is_first in zip(plan.embedded, first, strict=True) if is_first]
        changed = sum(item.id in known.by_id for item in embedded)
        forecast.items += len(incoming)
        forecast.new += len(embedded) - changed
        forecast.changed += changed
        forecast.reused += len(plan.reused) + len(plan.copied) + len(plan.embedded) - len(embedded)
        forecast.unchanged += len(plan.unchanged)
        forecast.duplicates += piece.duplicates
        for item in embedded:
            if isinstance(item.content, str):
                forecast.characters += len(item.content)
            else:
                forecast.bytes += len(item.content)
            forecast.tokens += self._tokens(item.content)

    def _tokens(self, content: str | bytes) -> int:
        """By the model, as long as it can."""
        if not self.forecast.tokens_estimated:
            try:
                return int(self._model.count_tokens(content))
            except Exception:  # whatever a plugin raises: a library that is missing, a tokenizer that can't be had
                self.forecast.tokens_estimated = True
        return len(content.encode() if isinstance(content, str) else content) // BYTES_A_TOKEN + 1


async def dry_run(request: CorpusRequest, settings: Settings, pruning: Pruning | None = None) -> int:
    """Read everything, ask the database, say what would happen. Nothing is queued and no model is called."""
    woken_by_ctrl_c()
    report = RowReport()
    reader = await asyncio.to_thread(open_corpus, request, settings, report)
    model, speed = await _asked(request, settings)
    check_binary(model, request)
    split(reader, request, model)
    if pruning is not None:
        pruning.watch(reader)
    try:
        store = await Store.open(settings.database, read_only=True)
    except DatabaseMissing:
        store = None
    try:
        with SeenIds() as contents:
            forecaster = Forecaster(model, contents, store=request.store)
            items, size = settings.chunk_items, settings.chunk_bytes
            with display(f"dry run of {request.collection}") as report.display:
                async with Reading(reader, max_items=items, max_bytes=size, stop=lambda: False) as pieces:
                    async for piece in pieces:
                        incoming = Incoming.of(piece.items)
                        known = Known() if store is None else await store.known(request.collection, incoming)
                        # A tokenizer takes its time.
                        await asyncio.to_thread(forecaster.add, piece, incoming, known)
                        report.display.show(Figures(forecaster.forecast.items, reader.share))
            report.display = None
            if pruning is not None and store is not None and not reader.rejected:
                compared, _ = await pruning.compare(store, lambda: False)
                forecaster.forecast.pruned = compared.gone
                forecaster.forecast.prune_refused = refusal(compared, pruning.verdict(compared))
    finally:
        if store is not None:
            await store.close()
    forecast = forecaster.forecast
    forecast.skipped = reader.rejected
    if request.json:
        print(json.dumps(_object(request.collection, model.model_id, forecast, speed)))
    else:
        print(*_words(request.collection, model.model_id, forecast, speed), sep="\n")
        if pruning is not None:
            print(_pruned_words(forecast))
    return 0


async def _asked(request: CorpusRequest, settings: Settings) -> tuple[EmbeddingModel, Measured | None]:
    """The model for the collection, and how fast it was. A queue that can't be asked now keeps nobody from reading."""
    if queue_exists(settings):
        try:
            async with open_queue(settings) as queue:
                model = await choose_model(request.collection, request.model, settings, queue)
                latest = await queue.runs.latest(RUNS, model_id=model.model_id, state="complete")
                return model, measured(latest)
        except QueueError as error:
            print(f"embedq: {error}; how fast the model was can't be asked", file=sys.stderr)
    return await choose_model(request.collection, request.model, settings, None), None


def _object(collection: str, model_id: str, forecast: Forecast, speed: Measured | None) -> dict[str, object]:
    """For JSON. `seconds` is how long the model takes, None where it has not been measured: no run of it tells."""
    return {
        "collection": collection,
        "model": model_id,
        **asdict(forecast),
        "inputs": forecast.inputs,
        "seconds": None if speed is None else round(forecast.inputs / speed.inputs_per_second, 3),
        "measured": None if speed is None else asdict(speed) | {"inputs_per_second": speed.inputs_per_second},
    }


def _pruned_words(forecast: Forecast) -> str:
    if forecast.pruned is None and forecast.skipped:
        return "--prune would remove nothing, since not every row could be read"
    would = f"--prune would remove {plural(forecast.pruned or 0, 'entry', 'entries')}"
    return would if forecast.prune_refused is None else f"{would} only where somebody says so: {forecast.prune_refused}"


def _words(collection: str, model_id: str, forecast: Forecast, speed: Measured | None) -> Iterator[str]:
    """For people."""
    yield (
        f"{shown(collection)} ({model_id}): {plural(forecast.items, 'item')}: {forecast.new:,} new, "
        f"{forecast.changed:,} changed, {forecast.reused:,} of known content, {forecast.unchanged:,} unchanged; "
        f"{plural(forecast.duplicates, 'duplicate id')}, {plural(forecast.skipped, 'row')} skipped"
    )
    binary = f" and {plural(forecast.bytes, 'byte')} of binary content" if forecast.bytes else ""
    yield f"{plural(forecast.characters, 'character')}{binary} to embed; nothing was queued"
    if not forecast.inputs:
        return
    if forecast.tokens_estimated:
        yield f"about {plural(forecast.tokens, 'token')}, a guess: one for every {BYTES_A_TOKEN} bytes"
    else:
        yield f"{plural(forecast.tokens, 'token')}, as {model_id} counts them"
    if speed is None:
        yield f"how long it takes is not known: there is no finished run of {model_id} to tell"
    else:
        rate = speed.inputs_per_second
        yield (
            f"about {duration(forecast.inputs / rate)}, at {rate:,.1f} contents/s: {plural(speed.inputs, 'content')} "
            f"in {plural(speed.runs, 'run')} of {model_id} took {duration(speed.seconds)}"
        )
