"""Helpers of other libraries that a script keeps in globals, or that decorate its functions."""

from __future__ import annotations

from tests.scripts.kind import Kind

KINDS = [
    Kind(
        title="a requests session with headers and an adapter",
        script="""
        import requests
        from requests.adapters import HTTPAdapter

        session = requests.Session()
        session.headers["X-App"] = "demo"
        session.mount("http://", HTTPAdapter(max_retries=0))

        def work(path):
            try:
                session.get(f"http://127.0.0.1:1/{path}", timeout=2)
            except requests.ConnectionError as error:
                return error.request.headers["X-App"], error.request.path_url
        """,
        use='pool.submit(work, "a").result()',
        needs=("requests",),
        expected="('demo', '/a')",
    ),
    Kind(
        title="loguru, configured at the top",
        script="""
        import sys

        from loguru import logger

        logger.remove()
        logger.add(sys.stdout, format="{level} {function} {message}", level="INFO")

        def work(number):
            logger.debug("not shown")
            logger.info("task {}", number)
            return number
        """,
        use="pool.submit(work, 1).result()",
        needs=("loguru",),
        expected="INFO work task 1\n1",
    ),
    Kind(
        title="a function that tenacity retries",
        script="""
        from tenacity import retry, retry_if_exception_type, stop_after_attempt

        class Busy(Exception):
            pass

        tries = []

        @retry(stop=stop_after_attempt(3), retry=retry_if_exception_type(Busy))
        def fetch(number):
            tries.append(number)
            if len(tries) < 3:
                raise Busy
            return len(tries)

        def work(number):
            return fetch(number)
        """,
        use="pool.submit(work, 1).result(), pool.submit(fetch, 1).result() > 2",
        workers=1,
        needs=("tenacity",),
        expected="(3, True)",
    ),
    Kind(
        title="cachetools.cached, with a lock",
        script="""
        import threading

        from cachetools import LRUCache, TTLCache, cached

        recent = TTLCache(maxsize=10, ttl=60)

        @cached(cache=LRUCache(maxsize=2), lock=threading.RLock())
        def square(number):
            recent[number] = "computed"
            return number ** 2

        def work(number):
            return square(number), len(recent)
        """,
        use="[pool.submit(work, number).result() for number in (2, 3, 2)]",
        workers=1,
        needs=("cachetools",),
        expected="[(4, 1), (9, 2), (4, 2)]",
    ),
    Kind(
        title="lxml: a parser, a tree and an XPath",
        script="""
        from lxml import etree

        parser = etree.XMLParser(remove_blank_text=True)
        names = etree.XPath("//item/@name")
        template = etree.fromstring("<list><item name='a'/></list>", parser)

        def work(text):
            return names(etree.fromstring(text, parser)) + names(template)
        """,
        use="pool.submit(work, \"<list> <item name='b'/> </list>\").result()",
        needs=("lxml",),
        expected="['b', 'a']",
    ),
    Kind(
        title="a networkx graph with objects of the script as nodes",
        script="""
        from dataclasses import dataclass

        import networkx as nx

        @dataclass(frozen=True)
        class City:
            name: str

        roads = nx.Graph()
        roads.add_weighted_edges_from([(City("a"), City("b"), 2), (City("b"), City("c"), 3)])

        def work(start, end):
            return [city.name for city in nx.shortest_path(roads, start, end, weight="weight")], City(end.name)
        """,
        use='(lambda path, city: (path, city == City("c")))(*pool.submit(work, City("a"), City("c")).result())',
        needs=("networkx",),
        expected="(['a', 'b', 'c'], True)",
    ),
]
