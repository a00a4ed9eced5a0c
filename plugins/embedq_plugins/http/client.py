"""Sending requests with httpx: the only module that knows it."""

import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx

from embedq_core.errors import ModelMisconfigured, ModelUnavailable
from embedq_plugins.http.answers import Reply
from embedq_plugins.http.options import HttpOptions

# More than any answer; a server that sends without end is not read without end.
_MOST_BYTES: Final = 1 << 30


class Client:
    """Connections to a model's endpoints, kept between requests. Threads share it."""

    def __init__(self, options: HttpOptions) -> None:
        self._seconds = options.timeout_seconds
        self._client = httpx.Client(
            timeout=httpx.Timeout(options.timeout_seconds, connect=options.connect_seconds),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=options.concurrency),
            verify=_trusted(options),
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def post(self, url: str, where: str, content: bytes, headers: Mapping[str, str]) -> Reply:
        """The reply to a request, whatever its status. `where` is the address in messages.

        Raises ModelUnavailable, and ModelMisconfigured for a certificate that is not trusted. Neither has a cause:
        httpx's errors hold the request with its headers.
        """
        try:
            return self._post(url, content, headers)
        except httpx.TimeoutException as error:
            problem = "no connection" if isinstance(error, httpx.ConnectTimeout) else "no whole answer"
            failure = ModelUnavailable(f"{where}: {problem} in time ({type(error).__name__})")
        except httpx.TransportError as error:
            failure = _failure(error, where)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            failure = ModelUnavailable(f"{where}: {type(error).__name__}: {_text(error)}")
        raise failure

    def _post(self, url: str, content: bytes, headers: Mapping[str, str]) -> Reply:
        deadline = time.monotonic() + self._seconds
        with self._client.stream("POST", url, content=content, headers=dict(headers)) as response:
            body = bytearray()
            for piece in response.iter_bytes():
                body += piece
                # httpx's own limit begins anew with each piece.
                if time.monotonic() > deadline or len(body) > _MOST_BYTES:
                    raise httpx.ReadTimeout("the answer does not end")
            return Reply(
                response.status_code, {name.lower(): value for name, value in response.headers.items()}, bytes(body)
            )


def _trusted(options: HttpOptions) -> ssl.SSLContext:
    if not any(address.startswith("https:") for address in options.addresses):
        # Reading the usual authorities takes longer than a request; this context trusts nobody.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = httpx.create_ssl_context()
    if options.ca_file is not None:
        try:
            context.load_verify_locations(Path(options.ca_file).expanduser())
        except OSError as error:
            problem = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
            raise ModelMisconfigured(f"ca_file {options.ca_file} can't be used: {problem}") from None
    return context


def _failure(error: Exception, where: str) -> ModelUnavailable:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ModelMisconfigured(
                f"{where}: its certificate is not trusted ({cause.verify_message}): name its authority in ca_file"
            )
        cause = cause.__cause__ or cause.__context__
    what = "can't be reached" if isinstance(error, httpx.ConnectError) else "the connection was lost"
    return ModelUnavailable(f"{where} {what}: {_text(error)}")


def _text(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
