"""Applications, clients and tools of libraries that a script keeps in globals."""

from __future__ import annotations

from tests.scripts.kind import Kind

KINDS = [
    Kind(
        title="a Flask application whose context tasks use",
        script="""
        from flask import Flask, current_app, jsonify, render_template_string

        app = Flask(__name__)
        app.config["RATE"] = 3

        @app.route("/double/<int:number>")
        def double(number):
            return jsonify(2 * number)

        def work(number):
            with app.app_context():
                rate = current_app.config["RATE"]
                text = render_template_string("{{ n }}!", n=number)
            return rate * number, text, app.test_client().get(f"/double/{number}").json
        """,
        use="pool.submit(work, 2).result()",
        needs=("Flask",),
        expected="(6, '2!', 4)",
    ),
    Kind(
        title="a rich Console and a Table",
        script="""
        from rich.console import Console
        from rich.table import Table

        console = Console(width=40, highlight=False, force_terminal=False)

        def work(number):
            table = Table("n")
            table.add_row(str(number))
            with console.capture() as capture:
                console.print(table)
            console.print(f"[bold]task[/bold] {number}")
            return str(number) in capture.get()
        """,
        use="pool.submit(work, 3).result()",
        needs=("rich",),
        expected="task 3\nTrue",
    ),
    Kind(
        title="a rich logging handler",
        script="""
        import logging

        from rich.console import Console
        from rich.logging import RichHandler

        console = Console(width=60, force_terminal=False)
        handler = RichHandler(console=console, show_time=False, show_path=False)
        logging.basicConfig(level="INFO", format="%(message)s", handlers=[handler])
        log = logging.getLogger("rich")

        def work(number):
            log.info("task %d", number)
            return number
        """,
        use="pool.submit(work, 3).result()",
        needs=("rich",),
        expected="INFO     task 3                                             \n3",
    ),
    Kind(
        title="a redis client",
        script="""
        import redis

        client = redis.Redis(host="127.0.0.1", port=1, socket_timeout=1)

        def work(key):
            try:
                client.get(key)
            except redis.ConnectionError:
                return client.connection_pool.connection_kwargs["port"]
        """,
        use='pool.submit(work, "a").result()',
        needs=("redis",),
        expected="1",
    ),
    Kind(
        title="a pymongo client, made and not yet connected",
        script="""
        from pymongo import MongoClient
        from pymongo.errors import ServerSelectionTimeoutError

        client = MongoClient("127.0.0.1", 1, serverSelectionTimeoutMS=50, connect=False)
        users = client.app.users

        def work(name):
            try:
                users.find_one({"name": name})
            except ServerSelectionTimeoutError:
                return users.full_name
        """,
        use='pool.submit(work, "a").result()',
        needs=("pymongo",),
        expected="app.users",
    ),
    Kind(
        title="an opentelemetry tracer of the API",
        script="""
        from opentelemetry import trace

        tracer = trace.get_tracer(__name__)

        @tracer.start_as_current_span("helper")
        def helper(number):
            return number + 1

        def work(number):
            with tracer.start_as_current_span("work") as span:
                span.set_attribute("number", number)
                return helper(number)
        """,
        use="pool.submit(work, 1).result()",
        needs=("opentelemetry-api",),
        expected="2",
    ),
    Kind(
        title="opentelemetry: a provider of the SDK and an exporter",
        script="""
        from opentelemetry import metrics, trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        tracer = trace.get_tracer("app")
        calls = metrics.get_meter("app").create_counter("calls")

        def work(number):
            with tracer.start_as_current_span(f"work {number}"):
                calls.add(1)
            return [span.name for span in exporter.get_finished_spans()]
        """,
        use="pool.submit(work, 3).result()",
        needs=("opentelemetry-sdk",),
        expected="['work 3']",
    ),
    Kind(
        title="a click command",
        script="""
        import click
        from click.testing import CliRunner
        from concurrent.futures import ProcessPoolExecutor

        @click.command()
        @click.option("--times", default=1)
        @click.argument("text")
        def echo(times, text):
            click.echo(text * times)

        def work(text):
            return CliRunner().invoke(echo, ["--times", "2", text]).output.strip()

        @click.command()
        @click.argument("text", default="ab")
        def main(text):
            with ProcessPoolExecutor(2) as pool:
                click.echo(pool.submit(work, text).result())

        if __name__ == "__main__":
            main()
        """,
        needs=("click",),
        expected="abab",
    ),
    Kind(
        title="a jinja2 environment and a template",
        script="""
        from jinja2 import DictLoader, Environment, Template

        environment = Environment(loader=DictLoader({"row": "{{ name|shout }};"}))
        environment.filters["shout"] = lambda text: text.upper()
        greeting = Template("hi {{ name }}")

        def work(name):
            return environment.get_template("row").render(name=name), greeting.render(name=name)
        """,
        use='pool.submit(work, "ann").result()',
        needs=("Jinja2",),
        expected="('ANN;', 'hi ann')",
    ),
    Kind(
        title="structlog, configured at the top",
        script="""
        import logging
        import sys

        import structlog

        def add_app(logger, method, event):
            return {**event, "app": "demo"}

        structlog.configure(
            processors=[
                add_app,
                structlog.processors.add_log_level,
                structlog.processors.KeyValueRenderer(sort_keys=True),
            ],
            logger_factory=structlog.PrintLoggerFactory(sys.stdout),
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        )
        log = structlog.get_logger()
        bound = log.bind(job="j")

        def work(number):
            bound.debug("not shown")
            bound.info("task", number=number)
            return number
        """,
        use="pool.submit(work, 3).result()",
        needs=("structlog",),
        expected="app='demo' event='task' job='j' level='info' number=3\n3",
    ),
    Kind(
        title="tqdm over as_completed, and a lock that workers share",
        script="""
        import io
        import multiprocessing as mp
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures import as_completed

        from tqdm import tqdm

        def work(number):
            for _ in tqdm(range(3), file=io.StringIO()):
                pass
            return number

        if __name__ == "__main__":
            tqdm.set_lock(mp.get_context("{method}").RLock())
            with ProcessPoolExecutor(2, initializer=tqdm.set_lock, initargs=(tqdm.get_lock(),)) as pool:
                futures = [pool.submit(work, number) for number in range(3)]
                print(sum(future.result() for future in tqdm(as_completed(futures), total=3, file=io.StringIO())))
        """,
        needs=("tqdm",),
        expected="3",
    ),
]
