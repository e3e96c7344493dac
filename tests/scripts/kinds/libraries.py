"""Models and data of libraries that a script defines or keeps."""

from __future__ import annotations

from tests.scripts.kind import Kind

KINDS = [
    Kind(
        title="numpy arrays, dtypes and a ufunc as globals",
        script="""
        import numpy as np

        PAIR = np.dtype([("id", "i4"), ("score", "f8")])
        WEIGHTS = np.linspace(0, 1, 5)
        scale = np.frompyfunc(lambda x, y: x * y, 2, 1)
        smooth = np.vectorize(lambda x: x + 1)

        def work(numbers):
            pairs = np.zeros(2, PAIR)
            pairs["id"] = 7
            return float(WEIGHTS @ numbers), pairs["id"].tolist(), scale(2, 3), smooth(numbers).tolist()[:2]
        """,
        use="pool.submit(work, np.arange(5)).result()",
        needs=("numpy",),
        expected="(7.5, [7, 7], 6, [1, 2])",
    ),
    Kind(
        title="numpy: a random generator and a subclass of ndarray",
        script="""
        import numpy as np

        rng = np.random.default_rng(7)

        class Signal(np.ndarray):
            @classmethod
            def of(cls, values):
                return np.asarray(values, float).view(cls)

            def energy(self):
                return float((self ** 2).sum())

        def work(signal):
            return signal.energy(), 0 <= rng.random() < 1, (signal * 2)
        """,
        use="""(lambda e, r, s: (e, r, type(s).__name__))(*pool.submit(work, Signal.of([3, 4])).result())""",
        needs=("numpy",),
        expected="(25.0, True, 'Signal')",
    ),
    Kind(
        title="numpy: settings of the top (seterr, printoptions)",
        script="""
        import numpy as np

        np.set_printoptions(precision=2)
        np.seterr(divide="raise")

        def work():
            try:
                np.ones(1) / np.zeros(1)
            except FloatingPointError:
                return str(np.array([1 / 3]))
        """,
        use="pool.submit(work).result()",
        needs=("numpy",),
        expected="[0.33]",
    ),
    Kind(
        title="a pandas frame as a global, and groupby with a function of the script",
        script="""
        import pandas as pd

        frame = pd.DataFrame({"key": list("aab"), "value": [1, 2, 3]})

        def spread(group):
            return group.max() - group.min()

        def work(key):
            part = frame[frame.key == key]
            return int(part.value.sum()), frame.groupby("key").value.agg(spread).to_dict()
        """,
        use='pool.submit(work, "a").result()',
        needs=("pandas",),
        expected="(3, {'a': 1, 'b': 0})",
    ),
    Kind(
        title="pandas frames as arguments and results",
        script="""
        import pandas as pd

        pd.set_option("display.max_rows", 7)

        def work(chunk):
            return chunk.assign(double=chunk.value * 2), pd.get_option("display.max_rows")
        """,
        use="""(lambda frame, rows: (frame.double.tolist(), rows))(
            *pool.submit(work, pd.DataFrame({"value": [1, 2]})).result())""",
        needs=("pandas",),
        expected="([2, 4], 7)",
    ),
    Kind(
        title="pydantic.BaseModel with validators",
        script="""
        from pydantic import BaseModel, Field, ValidationError, field_validator

        class User(BaseModel):
            name: str
            age: int = Field(ge=0)
            friends: "list[User]" = []

            @field_validator("name")
            @classmethod
            def upper(cls, value):
                return value.upper()

        def work(user):
            try:
                User(name="x", age=-1)
            except ValidationError as error:
                return User(name="bob", age=4, friends=[user]), error.error_count()
        """,
        use="""(lambda user, n: (user.friends[0].name, type(user) is User, n))(
            *pool.submit(work, User(name="ann", age=3)).result())""",
        needs=("pydantic",),
        expected="('ANN', True, 1)",
    ),
    Kind(
        title="pydantic: a generic model",
        script="""
        from typing import Generic, TypeVar

        from pydantic import BaseModel

        T = TypeVar("T")

        class Page(BaseModel, Generic[T]):
            items: list[T]

        Numbers = Page[int]

        def work(page):
            return Numbers(items=[*page.items, "3"])
        """,
        use="(lambda page: (type(page) is Numbers, page.items))(pool.submit(work, Page[int](items=[1])).result())",
        needs=("pydantic",),
        expected="(True, [1, 3])",
    ),
    Kind(
        title="pydantic: validate_call and TypeAdapter",
        script="""
        from pydantic import TypeAdapter, validate_call

        numbers = TypeAdapter(list[int])

        @validate_call
        def repeat(text: str, times: int = 2) -> str:
            return text * times

        def work(text):
            return repeat(text, "3"), numbers.validate_json("[1, 2]")
        """,
        use='pool.submit(work, "ab").result(), pool.submit(repeat, "x").result()',
        needs=("pydantic",),
        expected="(('ababab', [1, 2]), 'xx')",
    ),
    Kind(
        title="pydantic.dataclasses and a model with computed and private fields",
        script="""
        from pydantic import BaseModel, ConfigDict, PrivateAttr, computed_field
        from pydantic.dataclasses import dataclass

        @dataclass
        class Point:
            x: int
            y: int = 0

        class Box(BaseModel):
            model_config = ConfigDict(frozen=True)
            corner: Point
            side: int
            _seen: int = PrivateAttr(default=5)

            @computed_field
            @property
            def area(self) -> int:
                return self.side ** 2

        def work(box):
            return box.model_dump(), box._seen, Point("4")
        """,
        use='pool.submit(work, Box(corner={"x": "1"}, side=2)).result()',
        needs=("pydantic",),
        expected="({'corner': {'x': 1, 'y': 0}, 'side': 2, 'area': 4}, 5, Point(x=4, y=0))",
    ),
    Kind(
        title="msgspec.Struct, an encoder and a decoder",
        script="""
        import msgspec

        class User(msgspec.Struct, frozen=True):
            name: str
            groups: set[str] = set()

        encoder, decoder = msgspec.json.Encoder(), msgspec.json.Decoder(User)

        def work(user):
            return User(user.name.upper()), decoder.decode(encoder.encode(user)) == user
        """,
        use='pool.submit(work, User("ann", {"a"})).result()',
        needs=("msgspec",),
        expected="(User(name='ANN', groups=set()), True)",
    ),
    Kind(
        title="attrs classes: slots, converters, validators",
        script="""
        import attrs

        @attrs.define
        class Item:
            name: str = attrs.field(converter=str.lower)
            price: int = attrs.field(default=1, validator=attrs.validators.ge(0))
            tags: list[str] = attrs.Factory(list)

        @attrs.frozen
        class Order:
            items: tuple[Item, ...]

            @property
            def total(self):
                return sum(item.price for item in self.items)

        def work(order):
            return order.total, attrs.evolve(order.items[0], price=9), attrs.asdict(order.items[0])
        """,
        use='pool.submit(work, Order((Item("A", 2), Item("B", 3)))).result()',
        needs=("attrs",),
        expected="(5, Item(name='a', price=9, tags=[]), {'name': 'a', 'price': 2, 'tags': []})",
    ),
    Kind(
        title="a marshmallow schema",
        script="""
        from marshmallow import Schema, fields, post_load

        class User:
            def __init__(self, name):
                self.name = name

        class UserSchema(Schema):
            name = fields.String(required=True)

            @post_load
            def make(self, data, **_):
                return User(**data)

        schema = UserSchema()

        def work(data):
            return schema.load(data), schema.validate({})
        """,
        use="""(lambda user, errors: (type(user) is User, user.name, list(errors)))(
            *pool.submit(work, {"name": "a"}).result())""",
        needs=("marshmallow",),
        expected="(True, 'a', ['name'])",
    ),
    Kind(
        title="SQLAlchemy: models, an engine and a session factory",
        script="""
        from sqlalchemy import ForeignKey, create_engine, select
        from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, sessionmaker

        class Base(DeclarativeBase):
            pass

        class Author(Base):
            __tablename__ = "authors"
            id: Mapped[int] = mapped_column(primary_key=True)
            name: Mapped[str]
            books: Mapped[list["Book"]] = relationship(back_populates="author")

        class Book(Base):
            __tablename__ = "books"
            id: Mapped[int] = mapped_column(primary_key=True)
            title: Mapped[str]
            author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
            author: Mapped[Author] = relationship(back_populates="books")

        engine = create_engine("sqlite:///library.db")
        Session = sessionmaker(engine)

        def work(name):
            with Session.begin() as session:
                session.add(Author(name=name, books=[Book(title="A"), Book(title="B")]))
            with Session() as session:
                author = session.scalars(select(Author).where(Author.name == name)).one()
                return author.name, sorted(book.title for book in author.books)

        if __name__ == "__main__":
            Base.metadata.create_all(engine)
            engine.dispose()
            with ProcessPoolExecutor(2) as pool:
                print(list(pool.map(work, ["x", "y"])))
        """,
        needs=("SQLAlchemy",),
        expected="[('x', ['A', 'B']), ('y', ['A', 'B'])]",
    ),
    Kind(
        title="SQLAlchemy: objects of a model as arguments and results",
        script="""
        from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

        class Base(DeclarativeBase):
            pass

        class User(Base):
            __tablename__ = "users"
            id: Mapped[int] = mapped_column(primary_key=True)
            name: Mapped[str]

        def work(user):
            return User(id=user.id + 1, name=user.name.upper())
        """,
        use="""(lambda user: (type(user) is User, user.id, user.name))(
            pool.submit(work, User(id=1, name="ann")).result())""",
        needs=("SQLAlchemy",),
        expected="(True, 2, 'ANN')",
    ),
    Kind(
        title="SQLAlchemy: tables of the core and an engine in memory",
        script="""
        from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, insert, select

        metadata = MetaData()
        users = Table("users", metadata, Column("id", Integer, primary_key=True), Column("name", String))
        by_name = select(users.c.name).order_by(users.c.name)
        engine = create_engine("sqlite://")

        def work(*names):
            metadata.create_all(engine)
            with engine.begin() as connection:
                connection.execute(insert(users), [{"name": name} for name in names])
                return connection.execute(by_name).scalars().all()
        """,
        use='pool.submit(work, "b", "a").result()',
        needs=("SQLAlchemy",),
        expected="['a', 'b']",
    ),
]
