"""A database that somebody looks at time and again: it stays open between, whatever becomes of its file."""

from embedq_core.settings import Settings
from embedq_store import Store


class OpenDatabase:
    """The database of the settings, open for reading. Close it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: Store | None = None
        self._file: tuple[int, int] | None = None

    async def store(self) -> Store | None:
        """The database; another object where another file has taken its place, None where there is none (yet)."""
        try:
            stat = self._settings.database.stat()
        except FileNotFoundError:
            await self.close()
            return None
        if self._store is None or self._file != (stat.st_dev, stat.st_ino):
            await self.close()
            self._store = await Store.open(self._settings.database, read_only=True)
            self._file = (stat.st_dev, stat.st_ino)
        return self._store

    async def close(self) -> None:
        """Close it."""
        store, self._store = self._store, None
        if store is not None:
            await store.close()
