"""The admin door's pages for machines: /metrics, /healthz and /livez. They tell, and change nothing."""

from __future__ import annotations

from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from posthouse.log import Log

_FRESH = {"Cache-Control": "no-store"}
_PAGES = (
    "/metrics  what is counted and measured, for Prometheus\n/healthz  200 while mail can be taken\n/livez    200\n"
)


class House(Protocol):
    """What is told."""

    async def unready(self) -> str | None:
        """Why it is not ready, in one line; None: it is."""
        ...

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """The metrics for an `Accept` header, and their media type."""
        ...


def operations(house: House, log: Log) -> Starlette:
    """The application."""

    async def metrics(request: Request) -> Response:
        text, media_type = await house.exposition(request.headers.get("accept", ""))
        return Response(text, headers={**_FRESH, "Content-Type": media_type})

    async def health(_request: Request) -> Response:
        reason = await house.unready()
        return PlainTextResponse(f"{reason or 'ready'}\n", status_code=503 if reason else 200, headers=_FRESH)

    async def live(_request: Request) -> Response:
        return PlainTextResponse("alive\n", headers=_FRESH)

    async def pages(_request: Request) -> Response:
        return PlainTextResponse(_PAGES)

    async def broken(request: Request, problem: Exception) -> Response:
        log.error("admin door: a request failed", path=request.url.path, exc_info=problem)
        return PlainTextResponse("something went wrong; see the log\n", status_code=500)

    return Starlette(
        routes=[
            Route("/", pages),
            Route("/metrics", metrics),
            Route("/healthz", health),
            Route("/livez", live),
        ],
        exception_handlers={Exception: broken},
    )
