"""Exceptions that a script defines: raised in tasks, caught in the host."""

from __future__ import annotations

from tests.scripts.kind import Kind

_CATCHING = """
{script}

if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        try:
            pool.submit({call}).result()
        except {error} as error:
            print({use})
"""


def _catching(script: str, call: str, error: str, use: str) -> str:
    return _CATCHING.format(script=script.strip(), call=call, error=error, use=use)


KINDS = [
    Kind(
        title="an exception of the script, raised in a task",
        script=_catching(
            """
class NotFound(LookupError):
    pass

def work(name):
    raise NotFound(name)
""",
            'work, "x"',
            "NotFound",
            "type(error) is NotFound, error.args",
        ),
        expected="True ('x',)",
    ),
    Kind(
        title="an exception with an __init__ of its own and a __reduce__",
        script=_catching(
            """
class HttpError(Exception):
    def __init__(self, status, *, url):
        super().__init__(f"{status} at {url}")
        self.status, self.url = status, url

    def __reduce__(self):
        return _http_error, (self.status, self.url)

def _http_error(status, url):
    return HttpError(status, url=url)

def work(url):
    raise HttpError(404, url=url)
""",
            'work, "/a"',
            "HttpError",
            "error, error.status, error.url",
        ),
        expected="404 at /a 404 /a",
    ),
    Kind(
        title="an exception whose arguments are those of its __init__",
        script=_catching(
            """
class Invalid(ValueError):
    def __init__(self, field, reason="bad"):
        super().__init__(field, reason)
        self.field, self.reason = field, reason

    def __str__(self):
        return f"{self.field}: {self.reason}"

def work():
    error = Invalid("name")
    error.hint = "try again"
    raise error
""",
            "work",
            "Invalid",
            "error, error.hint",
        ),
        expected="name: bad try again",
    ),
    Kind(
        title="a hierarchy of exceptions, caught by the base",
        script=_catching(
            """
class AppError(Exception):
    code = 1

class Fatal(AppError):
    code = 2

def work():
    raise Fatal("stop")
""",
            "work",
            "AppError",
            "type(error).__name__, error.code, error",
        ),
        expected="Fatal 2 stop",
    ),
    Kind(
        title="an exception is returned, not raised",
        script="""
        class Problem(Exception):
            pass

        def work(number):
            try:
                if number < 0:
                    raise Problem(number)
            except Problem as problem:
                return problem
            return number
        """,
        use="[isinstance(one, Problem) for one in pool.map(work, [1, -1])]",
        expected="[False, True]",
    ),
    Kind(
        title="a task catches an exception of the script",
        script="""
        class Retry(Exception):
            def __init__(self, after):
                self.after = after

        def once(n):
            if n:
                raise Retry(n)
            return "done"

        def work(n):
            try:
                return once(n)
            except Retry as retry:
                return once(retry.after - 1)
        """,
        use="pool.submit(work, 1).result()",
        expected="done",
    ),
    Kind(
        title="raise from: the cause names the script's own line",
        script=_catching(
            """
class Wrapped(Exception):
    pass

def work(text):
    try:
        return int(text)
    except ValueError as error:
        raise Wrapped(text) from error  # here
""",
            'work, "x"',
            "Wrapped",
            '"invalid literal" in str(error.__cause__), "script.py" in str(error.__cause__), '
            '"# here" in str(error.__cause__)',
        ),
        expected="True True True",
    ),
    Kind(
        title="an ExceptionGroup of the script's exceptions",
        script=_catching(
            """
class Bad(Exception):
    pass

def work(n):
    raise ExceptionGroup("several", [Bad(i) for i in range(n)])
""",
            "work, 2",
            "ExceptionGroup",
            "error.message, [type(one) is Bad for one in error.exceptions]",
        ),
        expected="several [True, True]",
    ),
    Kind(
        title="traceback.format_exc in the task names the script and shows its line",
        script="""
        import traceback

        def fails():
            raise KeyError("k")  # the line

        def work():
            try:
                fails()
            except KeyError:
                return traceback.format_exc()
        """,
        use='(lambda text: ("script.py" in text, "# the line" in text))(pool.submit(work).result())',
        expected="(True, True)",
    ),
    Kind(
        title="warnings of a class of the script, turned into errors in the task",
        script="""
        import warnings

        class Obsolete(UserWarning):
            pass

        def old():
            warnings.warn("use new()", Obsolete, stacklevel=1)

        def work():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", Obsolete)
                old()
            return caught[0].category is Obsolete, str(caught[0].message)
        """,
        use="pool.submit(work).result()",
        expected="(True, 'use new()')",
    ),
]
