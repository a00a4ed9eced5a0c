"""Whatever a command of the program imports, imported: for the process that forks one for each command.

It is a module of its own since that process imports modules by their names, and is told to import this one.
"""

import contextlib
import functools
import importlib

import typer.main
from coverage import Coverage

from embedq_core.errors import SettingsError
from embedq_core.settings import load_settings
from support.parsing import parsed

for name in (
    "embedq.__main__",
    "embedq.audit.auditing",
    "embedq.doctor.doctoring",
    "embedq.steer.draining",
    "embedq.embedding_one",
    "embedq.ingesting",
    "embedq.inspecting",
    "embedq.reembed.reembedding",
    "embedq.transfer.renaming",
    "embedq.status.reporting",
    "embedq.steer.running",
    "embedq.schedule.scheduling",
    "embedq.models.default",
    "embedq.search.searching",
    "embedq.search.searching_many",
    "embedq.status.sections",
    "embedq.steer.steering",
    "embedq.tables",
    "embedq.transfer.exporting",
    "embedq.transfer.importing",
    "embedq.transfer.jsonl",
    "embedq.transfer.npz",
    "embedq.steer.waiting",
    "embedq.status.watching",
    "embedq_plugins.features",
    "embedq_producer.submitting",
    "embedq_store.sync",
    "embedq_worker.running",
    "llm.default_plugins.openai_models",
    "numpy.random",
    "rich.progress",
    "typer.rich_utils",
    "support.firing",
    "support.plugin",
    "support.serving",
):
    importlib.import_module(name)

# Typer builds all commands whenever one is run: the same ones, from the same functions.
typer.main.get_command = functools.cache(typer.main.get_command)
# Libraries import more when they are first used.
parsed(["status"])
with contextlib.suppress(SettingsError):  # of the test that happens to be the first
    load_settings()

# What all this has executed is put down once, and not again by each process that is forked.
if measuring := Coverage.current():
    measuring.save()
