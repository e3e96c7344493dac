"""Luigi and Ansible fork for their tasks, Scrapy has an event loop of Twisted's, Locust is patched by gevent."""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import find_spec

import pytest

from tests.hosts.far import scripts
from tests.hosts.forking import kill
from tests.hosts.observing import expect, expect_gone

SECTION = "Luigi, Ansible, Scrapy and Locust"


def needs(module):
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


def python(file):
    return [sys.executable, file]


LUIGI = """
import luigi, tempfile
folder = tempfile.TemporaryDirectory()

class Work(luigi.Task):
    number = luigi.IntParameter()

    def output(self):
        return luigi.LocalTarget(f"{folder.name}/{self.number}")

    def run(self):
        work()
        open(self.output().path, "w").close()
        tell(self.number)

BEFORE
done = luigi.build([Work(number=number) for number in range(3)], workers=2, local_scheduler=True, log_level="ERROR")
expect(done, "a task of Luigi's fails")
"""
WHERE = {
    "in a pool of their own": "def work(): use()",
    "in the pool of the process that forked them": """
pool = ProcessPoolExecutor(2)
compute(pool)
def work(): go_on(pool)
""",
}


@pytest.mark.case(SECTION, "tasks of Luigi's, in two processes, compute and have a worker crash", ways="both")
@pytest.mark.parametrize("where", WHERE)
def test_luigi(contender, where, home):
    needs("luigi")
    told = scripts.work(contender, home, python, LUIGI.replace("BEFORE", WHERE[where]), noise=True)
    expect(sorted(told) == [0, 1, 2], "not all tasks come to their end", told)


PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - debug:
        msg: "{{ 21 | worked }}"
"""
FILTER = """
class FilterModule:
    def filters(self):
        return {"worked": worked}

def worked(number):
    with ProcessPoolExecutor(2) as pool:
        doubled = result(pool.submit(tasks.double, number))
    use()
    tell(doubled)
    return doubled
"""


def ansible(file, hosts=4):
    plugins = file.parent / "filter_plugins"
    plugins.mkdir()
    file.rename(plugins / "worked.py")
    play = file.parent / "play.yml"
    play.write_text(PLAY)
    names = [f"host{number}" for number in range(hosts)]
    options = ["--connection", "local", "--forks", "4", "--inventory", f"{','.join(names)},"]
    return [sys.executable, "-m", "ansible", "playbook", *options, play]


@pytest.mark.case(
    SECTION, "a filter of Ansible's computes and has workers crash, in four forks at a time", ways="both"
)
def test_ansible(contender, home, tmp_path):
    needs("ansible")
    told = scripts.work(
        contender, home, ansible, FILTER, noise=True, env={"HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    )
    expect(told == [42] * 4, "not all forks come to their end", told)


SCRAPY = """
import asyncio
import scrapy
from scrapy.crawler import CrawlerProcess

found = []

class Spider(scrapy.Spider):
    name = "far"
    start_urls = [f"data:text/plain,{number}" for number in range(6)]
    pool = ProcessPoolExecutor(2)

    async def parse(self, response):
        number = int(response.text)
        ask = asyncio.get_running_loop().run_in_executor
        if OURS and number == 3:
            try:
                await ask(self.pool, tasks.leave, 3)
            except trapped.BrokenProcessPool:
                found.append("crash")
        found.append(await ask(self.pool, tasks.double, number))

crawler = CrawlerProcess({"LOG_LEVEL": "ERROR", "TELNETCONSOLE_ENABLED": False})
crawler.crawl(Spider)
crawler.start()
expect(sorted(map(str, found)) == sorted(["0", "2", "4", "6", "8", "10"] + ["crash"] * OURS), "wrong results", found)
tell("crawled")
"""


@pytest.mark.case(SECTION, "a spider of Scrapy's computes what it has read; a worker of ours crashes meanwhile")
def test_scrapy(contender, home):
    needs("scrapy")
    told = scripts.work(contender, home, python, SCRAPY)
    expect(told == ["crawled"], "the spider does not come to its end", told)


LOCUST = """
import gevent
from locust import User, constant, events, task

pool = ProcessPoolExecutor(2)
computed = []

class Person(User):
    wait_time = constant(0.01)

    @task
    def work(self):
        computed.append(result(pool.submit(tasks.double, 21)))
        if len(computed) == 50:
            if OURS:
                go_on(pool)
            tell("worked")
            gevent.spawn(self.environment.runner.quit)  # it would end the greenlet that calls it, amid the call
"""


def locust(file):
    options = ["--headless", "--users", "8", "--spawn-rate", "8", "--run-time", "30s", "--only-summary"]
    return [sys.executable, "-m", "locust", "-f", file, *options, "--host", "http://127.0.0.1"]


@pytest.mark.case(SECTION, "eight users of Locust's compute fifty times; then workers of ours crash")
def test_locust(contender, home):
    needs("locust")
    told = scripts.work(contender, home, locust, LOCUST, noise=True)
    expect(told == ["worked"], "the users do not come to their end", told)


# One task each: what its parent has forked beside it would go on without that.
STAY = "from tests.hosts.far.programs.staying import stay\n"
STAYING = {
    "Luigi": (python, LUIGI.replace("range(3)", "range(1)").replace("BEFORE", "work = stay")),
    "Ansible": (
        partial(ansible, hosts=1),
        "FilterModule = type('FilterModule', (), {'filters': lambda _: {'worked': lambda _: stay()}})",
    ),
    "Scrapy": (python, SCRAPY.replace("        number = int(response.text)", "        stay()")),
    "Locust": (
        locust,
        LOCUST.replace("        computed.append(result(pool.submit(tasks.double, 21)))", "        stay()"),
    ),
}


@pytest.mark.case(SECTION, "the process that performs the task is killed (SIGKILL) while its workers compute")
@pytest.mark.parametrize("name", STAYING)
def test_kill(contender, name, home, tmp_path):
    needs(name.lower())
    command, code = STAYING[name]
    with scripts.staying(contender, home, command, STAY + code, HOME=str(tmp_path), LC_ALL="C.UTF-8") as host:
        told = host.next_told()
        kill(told[0])
        expect_gone(told, "the killed process's workers are left")
