"""The web application: Daraja's endpoints and the testers', with Daraja's own 404, 405 and 413."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from daraja_simulator import control, daraja, replies
from daraja_simulator.replies import Reply
from daraja_simulator.settings import Settings
from daraja_simulator.simulator import Simulator

MAX_BODY_BYTES = 64 * 1024

SIMULATOR = web.AppKey("simulator", Simulator)

_HTTP_ERRORS: dict[int, Callable[[], Reply]] = {
    404: replies.not_found,
    405: replies.wrong_method,
    413: replies.too_large,
}


def create_app(settings: Settings) -> web.Application:
    """The application; `app[SIMULATOR]` is its simulator, which works while the app runs."""
    simulator = Simulator(settings)
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_http_errors])
    app[SIMULATOR] = simulator
    app.add_routes(daraja.routes(simulator))
    app.add_routes(control.routes(simulator))
    app.on_shutdown.append(_stop)
    app.cleanup_ctx.append(_opened)
    return app


async def _opened(app: web.Application) -> AsyncIterator[None]:
    app[SIMULATOR].open()
    yield
    await app[SIMULATOR].close()


async def _stop(app: web.Application) -> None:
    """Before requests are waited for, so that none waits for a callback."""
    await app[SIMULATOR].stop()


@web.middleware
async def _http_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (
        web.HTTPNotFound,
        web.HTTPMethodNotAllowed,
        web.HTTPRequestEntityTooLarge,
    ) as problem:
        return daraja.as_response(_HTTP_ERRORS[problem.status]())
