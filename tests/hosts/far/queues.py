"""Starting what works off a queue, and putting jobs into it. Redis has the queue; it listens at a file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conditions import eventually, marked
from tests.hosts import observing
from tests.hosts.far import debian
from tests.hosts.observing import Observed, environment, within

JOBS = "tests.hosts.far.programs.jobs"
SECONDS = 30.0  # after which a job hangs


@contextmanager
def redis() -> Iterator[str]:
    """Run a Redis server, and yield its address."""
    debian.needs("redis-server")
    with debian.public_folder() as folder:
        command = ["redis-server", "--port", "0", "--unixsocket", str(folder / "socket"), "--save", "", "--dir"]
        # Without the mark of this run: it is no part of any case.
        server = subprocess.Popen([*command, str(folder)], env={"PATH": debian.PATH}, stdout=subprocess.DEVNULL)
        try:
            eventually((folder / "socket").exists, "the Redis server starts")
            yield f"unix://{folder}/socket"
        finally:
            server.kill()
            server.wait(10)


@dataclass
class Consumer:
    """What works off a queue."""

    process: subprocess.Popen[str]
    folder: Path
    env: dict[str, str]

    def log(self) -> str:
        return (self.folder / "consumer.log").read_text(errors="replace")

    def put(self, *jobs: tuple[str, str], limit: float = 0) -> list[Path]:
        """Put jobs into the queue; return the files that they write what came of them to."""
        number = len(list(self.folder.glob("job-*-put")))
        files = [self.folder / f"job-{number + index}" for index in range(len(jobs))]
        arguments = [str(limit)]
        for (path, query), file in zip(jobs, files, strict=True):
            file.with_name(f"{file.name}-put").touch()
            arguments += [path, query, str(file)]
        code = f"import sys\nfrom {JOBS} import put_all\nput_all(*sys.argv[1:])"
        command = [sys.executable, "-c", code, *arguments]
        subprocess.run(command, env={**self.env, "POOL_AT": "module"}, timeout=30, check=True)
        return files

    def outcome(self, file: Path) -> Any:
        """Wait for a job and return what it says; fail the case for what it failed with."""
        said = json.loads(within(SECONDS, lambda: file.exists() and file.read_text(), "a job hangs", self.log))
        if isinstance(said, dict) and "failed" in said:
            raise Observed(f"a job fails: {said['failed']}\n{self.log()}")
        return said

    def do(self, *jobs: tuple[str, str], **options: Any) -> list[Any]:
        return [self.outcome(file) for file in self.put(*jobs, **options)]


@contextmanager
def consumer(contender: str, queue: str, arguments: str, folder: Path, url: str, at: str) -> Iterator[Consumer]:
    """Run what works off the queue."""
    more = {**marked("queue"), "QUEUE": queue, "QUEUE_URL": f"{url}", "POOL_AT": at}
    env = environment(contender, **more)
    log = folder / "consumer.log"
    with open(log, "wb") as out:
        command = [sys.executable, "-m", *arguments.format(url=url, jobs=JOBS).split()]
        with observing.host(contender, command, env=more, stdout=out, stderr=out) as process:
            try:
                yield Consumer(process, folder, env)
            finally:
                # Its processes do not end with one that is killed.
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
