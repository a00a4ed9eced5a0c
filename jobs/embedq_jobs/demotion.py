"""Connections that leave a server which has become a replica: the master is elsewhere now, and connecting anew
finds it. Without that, a failover would leave them open to a server that refuses every write.
"""

from typing import Any, Final

import redis.exceptions
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection


class _LeavesReplicas(AbstractConnection):
    async def read_response(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as redis-py has it
        """A reply; of one that says READONLY, a lost connection is made."""
        try:
            return await super().read_response(*args, **options)
        except redis.exceptions.ResponseError as error:
            if not _from_a_replica(error):
                raise
            await self.disconnect(nowait=True)
            raise redis.exceptions.ConnectionError("it is a replica now, which can't be written to") from error


def _from_a_replica(error: redis.exceptions.ResponseError) -> bool:
    # Before Redis 7, what a command in a script is answered comes inside the text of another error.
    return isinstance(error, redis.exceptions.ReadOnlyError) or "-READONLY " in str(error)


class TcpConnection(_LeavesReplicas, Connection):
    """Over TCP."""


class TlsConnection(_LeavesReplicas, SSLConnection):
    """Over TCP with TLS."""


class UnixConnection(_LeavesReplicas, UnixDomainSocketConnection):
    """Over a Unix socket."""


LEAVING_REPLICAS: Final[dict[type[AbstractConnection], type[AbstractConnection]]] = {
    Connection: TcpConnection,
    SSLConnection: TlsConnection,
    UnixDomainSocketConnection: UnixConnection,
}
"""For each class of redis-py, ours."""
