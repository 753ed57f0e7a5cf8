"""The HTTP interface: POST /recommend, GET /items, /health, /metrics and one page at /."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Body, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from slmrec.errors import InputError
from slmrec.recommendation import Model, Recommendations
from slmrec.recommendation import Query as ModelQuery
from slmrec.serving.batcher import Batcher
from slmrec.serving.limits import BodyLimit

MAX_HISTORY, MAX_ID, MAX_K, MAX_LISTED = 1000, 200, 100, 1000
MAX_BODY = 512 * 1024  # bytes of a request: 1,000 ids of 200 characters and as many to exclude fit
PAGE = Path(__file__).with_name("page.html")

logger = logging.getLogger(__name__)
Id = Annotated[str, Field(max_length=MAX_ID)]


class Ask(BaseModel):
    """A history and what is wanted for it."""

    model_config = ConfigDict(extra="forbid")
    history: list[Id] = Field(max_length=MAX_HISTORY, description="source ids of the items, oldest first")
    k: int = Field(10, ge=1, le=MAX_K, strict=True, description="how many items")
    filter_viewed: bool = Field(True, description="leave out the items of the history")
    exclude: list[Id] = Field([], max_length=MAX_LISTED, description="ids that must not be recommended")
    only: list[Id] | None = Field(None, max_length=MAX_LISTED, description="ids that alone may be recommended")
    unknown: Literal["skip", "refuse"] = Field("skip", description="what to do with ids that the model does not know")


class Item(BaseModel):
    item: str
    title: str
    score: float


class Answer(BaseModel):
    """The best items, best first."""

    items: list[Item]
    unknown: list[str] = Field(description="ids of the history that the model does not know and that were skipped")
    by_popularity: bool = Field(description="nothing of the history was known: these are the most popular items")


class Meters:
    """What /metrics shows."""

    def __init__(self):
        self.registry = CollectorRegistry()
        self.requests = Counter("slmrec_requests", "Requests by path and status", ["path", "status"], registry=self.registry)
        buckets = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)
        self.seconds = Histogram("slmrec_seconds", "Seconds of a recommendation", registry=self.registry, buckets=buckets)
        self.batch = Histogram(
            "slmrec_batch_size", "Histories answered together", registry=self.registry, buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
        )


def create_app(model: Model, name: str, *, wait: float = 0.003, most: int = 256) -> FastAPI:
    """The application for one loaded model.

    Args:
        name: what /health calls the model.
        wait, most: how long, and for how many others, a request waits (see `Batcher`).
    """
    meters = Meters()
    batcher: Batcher[ModelQuery, Recommendations | InputError] = Batcher(answers_of(model), wait, most, meters.batch.observe)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await batcher.stop()

    app = FastAPI(title="SLMRec", description=f"Next-item recommendations of {name}.", lifespan=lifespan)
    app.add_middleware(BodyLimit, most=MAX_BODY)
    _count_requests(app, meters)
    _answer_errors(app)
    example = {
        "history": [model.catalogue.source_ids[i] for i in (-model.catalogue.popularity).argsort(kind="stable")[:2]],
        "k": 5,
    }

    @app.post("/recommend", response_model=Answer, responses={400: {"description": "what is wrong with the request"}})
    async def recommend(ask: Ask = Body(openapi_examples={"two items": {"value": example}})) -> Answer:
        """The best next items after a history."""
        started = time.perf_counter()
        found = await batcher.ask(ModelQuery(**ask.model_dump()))
        if isinstance(found, InputError):
            raise HTTPException(400, str(found))
        meters.seconds.observe(time.perf_counter() - started)
        items = [Item(item=one.item, title=one.title, score=one.score) for one in found]
        return Answer(items=items, unknown=list(found.unknown), by_popularity=found.by_popularity)

    @app.get("/items")
    async def items(
        query: Annotated[str, Query(max_length=MAX_ID)] = "", limit: Annotated[int, Query(ge=1, le=50)] = 20
    ) -> list[dict]:
        """Items whose title or id holds the query, the most popular first."""
        return search(query)[:limit]

    search = _searcher(model)

    @app.get("/health")
    async def health() -> dict:
        return {"status": "ok", "model": name, "items": len(model.catalogue), "reads": model.recommender.max_length}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(generate_latest(meters.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> str:
        return PAGE.read_text(encoding="utf-8")

    return app


def answers_of(model: Model):
    """Several queries -> their answers; a query that is refused gets its InputError, the others are answered all the same."""

    def answers(queries: list[ModelQuery]) -> Sequence[Recommendations | InputError]:
        try:
            return model.recommend_many(queries)
        except InputError as error:
            if len(queries) == 1:
                return [error]
            return [one for query in queries for one in answers([query])]

    return answers


def _searcher(model: Model):
    catalogue = model.catalogue
    order = (-catalogue.popularity).argsort(kind="stable").tolist()
    texts = [f"{catalogue.titles[i]} {catalogue.source_ids[i]}".casefold() for i in order]

    def search(query: str) -> list[dict]:
        words = query.casefold().split()
        found = (i for i, text in zip(order, texts) if all(word in text for word in words))
        return [{"item": catalogue.source_ids[i], "title": catalogue.titles[i]} for i, _ in zip(found, range(50))]

    return search


def _count_requests(app: FastAPI, meters: Meters) -> None:
    paths = {"/recommend", "/items", "/health", "/metrics", "/"}

    @app.middleware("http")
    async def count(request: Request, call_next):
        response = await call_next(request)
        path = request.url.path if request.url.path in paths else "other"
        meters.requests.labels(path, response.status_code).inc()
        return response


def _reason(first: dict) -> str:
    """One line of pydantic's first complaint."""
    where = ".".join(str(part) for part in first["loc"][1:])  # behind "body" or "query"
    if first["type"] == "json_invalid":
        return f"the body is not JSON, at character {where}: {first['ctx']['error']}"
    if not where:
        return "the body must be a JSON object, sent with content-type: application/json"
    return f"{where}: {first['msg']}"


def _answer_errors(app: FastAPI) -> None:
    """Every error is {"error": reason}; what is our own fault is logged, and its reason stays here."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": _reason(error.errors()[0])}, 400)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return JSONResponse({"error": "internal error"}, 500)
