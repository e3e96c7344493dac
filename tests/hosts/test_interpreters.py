"""How the host's interpreter was started, and where its modules come from."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import cloudpickle
import pytest

from tests.conditions import ROOT
from tests.hosts.trapping import trap

SECTION = "The host's interpreter and its modules"
SAME_PATH = f"import sys\nsys.path[1:1] = {[path for path in (ROOT, *sys.path) if path]!r}\n"

# ---- options ---------------------------------------------------------------------------------------------------

OPTIONS = (
    "-I", "-O", "-OO", "-B", "-E", "-S", "-P", "-s", "-u", "-b", "-bb", "-q", "-W error", "-W ignore", "-X dev",
    "-X utf8", "-X utf8=0", "-X faulthandler", "-X tracemalloc=3", "-X no_debug_ranges", "-X frozen_modules=off",
    "-X int_max_str_digits=700", "-X pycache_prefix=/nowhere",
)  # fmt: skip
COMPARED = """
from tests.hosts.programs.looking import look
use()
with ProcessPoolExecutor(1) as pool:
    found, expected = result(pool.submit(look)), look()
    for flags in (found["sys.flags"], expected["sys.flags"]):
        del flags["quiet"]  # is for prompts
    missing = expected["options -X"].items() - found["options -X"].items()
    expect(not missing, "options -X are not handed on to workers", missing)
    for key in ("sys.flags", "sys.warnoptions", "sys.prefix"):
        expect(found[key] == expected[key], f"{key} of workers differ", (found[key], expected[key]))
"""


@pytest.mark.costly_table
@pytest.mark.case(SECTION, "Python is started with", ways="both")
@pytest.mark.parametrize("option", OPTIONS)
def test_options_of_the_interpreter(contender, option):
    """Workers run with the same ones."""
    trap(contender, COMPARED, flags=option.split(), before=SAME_PATH)


@pytest.mark.costly_table
@pytest.mark.case(SECTION, "an option is given by the environment", ways="both")
@pytest.mark.parametrize(
    "variable",
    ["PYTHONSAFEPATH=1", "PYTHONOPTIMIZE=2", "PYTHONDEVMODE=1", "PYTHONWARNINGS=error", "PYTHONNOUSERSITE=1"],
)
def test_options_by_the_environment(contender, variable):
    name, _, value = variable.partition("=")
    trap(contender, COMPARED, env={name: value}, before=SAME_PATH)


@pytest.mark.case(SECTION, "warnings are errors, and the pool is made while other threads run", ways="both")
def test_warnings_as_errors_in_a_host_with_threads(contender):
    """Since Python 3.12 os.fork() warns of threads."""
    trap(
        contender,
        """
        over = threading.Event()
        thread = threading.Thread(target=over.wait)
        thread.start()
        try:
            use()
        finally:
            over.set()
        """,
        flags=["-W", "error"],
    )


# ---- where modules come from -----------------------------------------------------------------------------------


def write(folder: Path, name: str, code: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(code))


MOVED = {
    "PYTHONPATH has a relative entry": ("lib", {"PYTHONPATH": "lib"}, ""),
    "it was imported from the current directory": (".", {}, "sys.path.insert(0, '')"),
    "sys.path has a relative entry": ("lib", {}, "sys.path.insert(0, 'lib')"),
}


@pytest.mark.case(SECTION, "the host has changed its directory since it imported the task's module", ways="both")
@pytest.mark.parametrize("how", MOVED)
def test_modules_found_by_a_relative_path(contender, how, tmp_path):
    folder, environment, code = MOVED[how]
    write(tmp_path, f"{folder}/moved_task.py", "def triple(number):\n    return 3 * number\n")
    env = {name: f"{value}:{ROOT}" for name, value in environment.items()}
    trap(
        contender,
        f"""
        {code}
        import moved_task
        os.chdir("/")
        with ProcessPoolExecutor(2) as pool:
            expect(result(pool.submit(moved_task.triple, 4)) == 12, "a wrong result")
        use()
        """,
        env=env,
        cwd=tmp_path,
    )


@pytest.mark.case(SECTION, "all of it comes from a zip file: the host, its tasks and the pool's package", ways="both")
@pytest.mark.parametrize("directory", ["started where it lies", "started elsewhere; it then moves on"])
def test_a_zipapp(contender, directory, tmp_path):
    app = tmp_path / "app.pyz"
    with zipfile.ZipFile(app, "w") as file:
        for package in ("pidfdpool", "tests/hosts/programs"):
            for path in sorted(Path(ROOT, package).rglob("*.py")):
                file.write(path, path.relative_to(ROOT))
        file.write(Path(ROOT, "tests/__init__.py"), "tests/__init__.py")
        file.write(Path(ROOT, "tests/hosts/__init__.py"), "tests/hosts/__init__.py")
        for path in sorted(Path(cloudpickle.__file__).parent.glob("*.py")):
            file.write(path, f"cloudpickle/{path.name}")
        file.writestr("zipped_task.py", "def triple(number):\n    return 3 * number\n")
        file.writestr("__main__.py", "import sys\nexec(sys.argv[1])\n")
    code = """
        import zipped_task
        expect(not OURS or "app.pyz" in sys.modules["pidfdpool"].__file__, "the package is not that of the zip file")
        MOVE
        with ProcessPoolExecutor(2) as pool:
            expect(result(pool.submit(zipped_task.triple, 4)) == 12, "a wrong result")
        use()
        """
    move = "" if "where" in directory and "else" not in directory else "os.chdir('/')"
    trap(
        contender,
        code.replace("MOVE", move),
        command=[sys.executable, "-S", os.path.relpath(app, tmp_path)],
        env={"PYTHONPATH": ""},
        cwd=tmp_path,
    )


@pytest.mark.case(SECTION, "a task's module lies in a zip file that the host has put on sys.path", ways="both")
def test_modules_in_a_zip_file(contender, tmp_path):
    with zipfile.ZipFile(tmp_path / "modules.zip", "w") as file:
        file.writestr("zipped_task.py", "def triple(number):\n    return 3 * number\n")
    trap(
        contender,
        f"""
        sys.path.append({str(tmp_path / "modules.zip")!r})
        import zipped_task
        with ProcessPoolExecutor(2) as pool:
            expect(result(pool.submit(zipped_task.triple, 4)) == 12, "a wrong result")
        """,
    )


FINDER = """\
import importlib.util, sys
class Finder:
    def __init__(self, places):
        self.places = places
    def find_spec(self, name, path=None, target=None):
        if name in self.places:
            place = self.places[name]
            inside = [place] if place.endswith("/__init__.py") else None
            folders = [place.removesuffix("/__init__.py")] if inside else None
            return importlib.util.spec_from_file_location(name, place, submodule_search_locations=folders)
"""


@pytest.mark.case(
    SECTION,
    "a task's module is found by an import hook that the host has installed (pidfdpool: it is preloaded)",
    ways="both",
)
def test_an_import_hook_of_the_host(contender, tmp_path):
    """A fresh interpreter has no such hook: tasks say what is missing, and a preload brings it."""
    write(tmp_path, "hooked.py", "def triple(number):\n    return 3 * number\n")
    write(
        tmp_path,
        "install_hook.py",
        f"{FINDER}\nsys.meta_path.append(Finder({{'hooked_task': {str(tmp_path / 'hooked.py')!r}}}))\n",
    )
    trap(
        contender,
        f"""
        sys.path.append({str(tmp_path)!r})
        import install_hook
        import hooked_task
        rules = {{}}
        if os.environ["PIDFDPOOL_CONTENDER"] == "spawn":
            with ProcessPoolExecutor(2) as pool:
                error = pool.submit(hooked_task.triple, 4).exception(timeout=trapped.SECONDS)
                expect("No module named 'hooked_task'" in str(error), "the error does not say what is missing", error)
            rules["preload"] = "install_hook"
        with ProcessPoolExecutor(2, **rules) as pool:
            expect(result(pool.submit(hooked_task.triple, 4)) == 12, "a wrong result")
        """,
    )


def make_venv(folder: Path, *options: str) -> Path:
    """Make a virtual environment without pip and return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", *options, folder], check=True, timeout=60)
    return folder / "bin" / "python"


def packages_of(folder: Path) -> Path:
    return next((folder / "lib").glob("python*")) / "site-packages"


VENV_BODY = """
from tests.hosts.programs.looking import look
with ProcessPoolExecutor(2) as pool:
    found = result(pool.submit(look))
    expect(found["sys.prefix"] == sys.prefix != sys.base_prefix, "workers belong to another environment", found)
    expect(found["sys.executable"] == sys.executable, "workers have another interpreter", found)
use()
"""


@pytest.mark.case(SECTION, "the host runs in a virtual environment without pip, made of", ways="both")
@pytest.mark.parametrize("kind", ["--symlinks", "--copies"])
def test_a_virtual_environment(contender, kind, tmp_path):
    program = make_venv(tmp_path / "venv", kind)
    where = os.path.dirname(os.path.dirname(cloudpickle.__file__))
    write(packages_of(tmp_path / "venv"), "places.pth", f"{ROOT}\n{where}\n")
    trap(contender, VENV_BODY, command=[str(program), "-I", "-c"])


@pytest.mark.case(SECTION, "packages are installed editable, by an import hook in a .pth file", ways="both")
def test_an_editable_install(contender, tmp_path):
    program = make_venv(tmp_path / "venv")
    packages = packages_of(tmp_path / "venv")
    places = {
        "pidfdpool": f"{ROOT}/pidfdpool/__init__.py",
        "tests": f"{ROOT}/tests/__init__.py",
        "cloudpickle": cloudpickle.__file__,
    }
    write(packages, "editable_finder.py", f"{FINDER}\nsys.meta_path.append(Finder({places!r}))\n")
    write(packages, "editable.pth", "import editable_finder\n")
    trap(contender, VENV_BODY, command=[str(program), "-I", "-c"])
