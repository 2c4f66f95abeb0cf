"""Somebody else's application: a library with its own models on a database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
import pytest
from sqlalchemy import Column, Engine, ForeignKey, Table, create_engine
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.orm import DeclarativeBase, Mapped, WriteOnlyMapped, mapped_column, relationship

from playbook.target import embedded

AUTHORS = 12


class Base(DeclarativeBase):
    type_annotation_map = {datetime: TIMESTAMP(timezone=True)}  # noqa: RUF012


class Publisher(Base):
    __tablename__ = "publisher"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    publisher_id: Mapped[int] = mapped_column(ForeignKey("publisher.id"))
    agent_id: Mapped[int] = mapped_column(ForeignKey("publisher.id"))
    biography: Mapped[str] = mapped_column(deferred=True)
    publisher: Mapped[Publisher] = relationship(foreign_keys=[publisher_id])
    agent: Mapped[Publisher] = relationship(foreign_keys=[agent_id])
    books: Mapped[list[Book]] = relationship(order_by="Book.id", back_populates="author")
    archive: WriteOnlyMapped[Book] = relationship(viewonly=True, order_by="Book.id")

    @property
    def agent_name(self) -> str:
        return self.agent.name


book_tag = Table(
    "book_tag",
    Base.metadata,
    Column("book_id", ForeignKey("book.id"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)


class Tag(Base):
    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    lent_at: Mapped[datetime]
    author: Mapped[Author] = relationship(back_populates="books")
    tags: Mapped[list[Tag]] = relationship(secondary=book_tag)
    tag_names: AssociationProxy[list[str]] = association_proxy("tags", "name")


class Shelf(Base):
    __tablename__ = "shelf"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("shelf.id"))
    parent: Mapped[Shelf | None] = relationship(remote_side=[id], back_populates="children")
    children: Mapped[list[Shelf]] = relationship(back_populates="parent")


ROWS = f"""
INSERT INTO publisher SELECT n, 'publisher ' || n FROM generate_series(1, {AUTHORS + 1}) n;
INSERT INTO author SELECT n, 'author ' || n, 1, n + 1, 'born' FROM generate_series(1, {AUTHORS}) n;
INSERT INTO tag SELECT n, 'tag ' || n FROM generate_series(1, 3) n;
INSERT INTO book SELECT n, 'book ' || n, 1 + (n - 1) / 3, timestamptz '2026-01-01 00:00+00' + n * interval '7 hours'
FROM generate_series(1, {3 * AUTHORS}) n;
INSERT INTO book_tag SELECT n, 1 + n % 3 FROM generate_series(1, {3 * AUTHORS}) n;
INSERT INTO shelf SELECT n, CASE WHEN n > 1 THEN n / 2 END FROM generate_series(1, 63) n;
CREATE SEQUENCE ticket;
SELECT setval(pg_get_serial_sequence('tag', 'id'), 1000);
"""


@pytest.fixture(scope="session")
def library(server: embedded.Server) -> Iterator[Engine]:
    """The library's engine."""

    def admin(statement: str) -> None:
        with psycopg.connect(**server.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    admin("CREATE DATABASE library")
    parameters: dict[str, Any] = server.conninfo("library")
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(**parameters))
    Base.metadata.create_all(engine)
    with psycopg.connect(**parameters) as connection:
        connection.execute(ROWS)
    yield engine
    engine.dispose()
    admin("DROP DATABASE library WITH (FORCE)")
