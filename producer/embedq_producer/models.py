"""Which model a submission is for."""

from dataclasses import dataclass

from embedq_core.configuration import Configuration, check_writing
from embedq_core.errors import DatabaseMissing, ModelMismatch, SettingsError, UsageError
from embedq_core.settings import Settings, default_model_file
from embedq_jobs import Queue
from embedq_plugins import EmbeddingModel, get_embedding_model
from embedq_producer.corpus_options import CorpusRequest
from embedq_store import Store

FALLBACK_MODEL = "hashing"


def default_model_id(settings: Settings) -> str | None:
    """The model that is used where none is named: from the settings, else from 'embedq models default'."""
    if settings.model:
        return settings.model
    try:
        return default_model_file().read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{default_model_file()}: is not text: 'embedq models default MODEL' writes it anew"
        ) from error


@dataclass(frozen=True, slots=True)
class Choice:
    """The model of a submission."""

    model: EmbeddingModel
    by_default: bool
    """Whether nobody has chosen it: the collection is new, and no setting names a model."""


async def choose_model(collection: str, asked: str | None, settings: Settings, queue: Queue | None) -> EmbeddingModel:
    """The model for `collection`: see `choice_of_model`."""
    return (await choice_of_model(collection, asked, settings, queue)).model


async def choice_of_model(collection: str, asked: str | None, settings: Settings, queue: Queue | None) -> Choice:
    """The model for `collection`: the one it has; else the one asked for, the default, or the built-in one.

    Raises UnknownModel; ModelMismatch where another one is asked for than the collection has, and
    ConfigurationMismatch where it is the same in another configuration.
    """
    wanted = get_embedding_model(asked) if asked else None
    known, recorded = await _known(collection, settings, queue)
    if known is None:
        default = default_model_id(settings)
        model = wanted or get_embedding_model(default or FALLBACK_MODEL)
        return Choice(model, by_default=wanted is None and default is None)
    if wanted is not None and wanted.model_id != known:
        raise ModelMismatch(
            f"the collection {collection!r} was embedded with {known}, not with {wanted.model_id}: leave -m out, "
            f"or name another collection, or see 'embedq reembed {collection} -m {wanted.model_id}'"
        )
    model = wanted or get_embedding_model(known)
    if recorded is not None:
        check_writing(collection, known, recorded, model.configuration)
    return Choice(model, by_default=False)


async def _known(collection: str, settings: Settings, queue: Queue | None) -> tuple[str | None, Configuration | None]:
    """The model that `collection` has, or will have when what is queued is done, and what is recorded of it.

    None for a new collection. A shared queue is asked first: the database here may be another than the one its workers
    write to. Otherwise the database has the first word.
    """
    queued = None if queue is None else await queue.collection_model(collection)
    if queued is not None and settings.redis_url is not None:
        return queued, None
    try:
        async with await Store.open(settings.database, read_only=True, busy_seconds=settings.busy_seconds) as store:
            found = await store.find_collection(collection)
            if found is not None:
                return found.model_id, await store.configuration(found.id)
    except DatabaseMissing:
        pass
    return queued, None


def full_batch(model: EmbeddingModel) -> int | None:
    """How many contents make a full batch; None where there is no such number, or tokens bound it as well."""
    return model.batch_size if model.batch_tokens is None else None


def check_binary(model: EmbeddingModel, request: CorpusRequest) -> None:
    """Raise UsageError where the corpus is bytes and the model takes text only, or the reverse.

    Of the rows of SQL and Parquet nobody knows before they are read: what the model doesn't take becomes dead letters.
    """
    if request.binary and not model.supports_binary:
        raise UsageError(f"the model {model.model_id} takes text only: leave --binary out, or name another model")
    if not (model.supports_text or request.may_hold_bytes()):
        raise UsageError(f"the model {model.model_id} takes binary content only: use --binary with --files")
