"""The design that one would write first: FastAPI, pydantic, a row a reading, an async session and a commit a request.

It does what the contract asks of a push and no more: the token, the org's metric, current and last, an upsert by
(metric, reading_at). The file is as durable as ours: WAL, ``synchronous=FULL``.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel
from sqlalchemy import ForeignKey, UniqueConstraint, event, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine(
    os.environ["database_url"].replace("sqlite:", "sqlite+aiosqlite:", 1),  # noqa: SIM112 -- the setting's own name
    connect_args={"timeout": 60},
)
sessions = async_sessionmaker(engine, expire_on_commit=False)
tokens: dict[str, str] = json.loads(os.environ["api_tokens"])  # noqa: SIM112 -- the setting's own name


@event.listens_for(engine.sync_engine, "connect")
def durable(connection, _record) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


class Base(DeclarativeBase):
    pass


class MetricRow(Base):
    __tablename__ = "metric"
    __table_args__ = (UniqueConstraint("org", "code"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    org: Mapped[str]
    code: Mapped[str]
    active: Mapped[bool] = mapped_column(default=True)
    current: Mapped[float | None]
    current_at: Mapped[datetime | None]
    last: Mapped[float | None]
    last_at: Mapped[datetime | None]


class ReadingRow(Base):
    __tablename__ = "reading"
    metric_id: Mapped[int] = mapped_column(ForeignKey("metric.id"), primary_key=True)
    reading_at: Mapped[datetime] = mapped_column(primary_key=True)
    reading: Mapped[float]
    recorded_at: Mapped[datetime]


class MetricIn(BaseModel):
    code: str
    name: str


class ReadingIn(BaseModel):
    reading: float
    reading_at: datetime | None = None


class ReadingOut(BaseModel):
    reading: float
    reading_at: datetime
    metric_id: int
    recorded_at: datetime


async def session_of_request() -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


async def org_of_request(x_auth_token: Annotated[str | None, Header()] = None) -> str:
    org = tokens.get(x_auth_token or "")
    if org is None:
        raise HTTPException(401)
    return org


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)
Session = Annotated[AsyncSession, Depends(session_of_request)]
Org = Annotated[str, Depends(org_of_request)]


@app.get("/health")
async def health() -> dict[str, str]:
    return {}


@app.post("/metric/")
async def create(body: MetricIn, session: Session, org: Org) -> dict[str, int]:
    row = MetricRow(org=org, code=body.code)
    session.add(row)
    await session.commit()
    return {"id": row.id}


@app.post("/metric/{code}")
async def push(code: str, body: ReadingIn, session: Session, org: Org) -> ReadingOut:
    query = select(MetricRow).where(MetricRow.org == org, MetricRow.code == code)
    metric = (await session.execute(query)).scalar_one_or_none()
    if metric is None or not metric.active:
        raise HTTPException(404)
    now = datetime.now(UTC).replace(tzinfo=None)
    at = now if body.reading_at is None else body.reading_at.astimezone(UTC).replace(tzinfo=None)
    row = {"metric_id": metric.id, "reading_at": at, "reading": body.reading, "recorded_at": now}
    statement = insert(ReadingRow).values(row)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["metric_id", "reading_at"],
            set_={"reading": statement.excluded.reading, "recorded_at": statement.excluded.recorded_at},
        )
    )
    if metric.current_at is None or at > metric.current_at:
        metric.last, metric.last_at = metric.current, metric.current_at
        metric.current, metric.current_at = body.reading, at
    await session.commit()
    return ReadingOut(reading=body.reading, reading_at=at, metric_id=metric.id, recorded_at=now)
