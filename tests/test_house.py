"""The shape of the three packages: how many modules a folder holds, and that nothing in them imports in a ring.

Imports are read from the source, wherever they stand: in a function or under TYPE_CHECKING one counts like any other.
"""

import ast
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOPS = {"securekd": 16, "attacks/securekd_attacks": 16, "protocols/securekd_protocols": 24}
"""How many modules may lie flat at the top of each package."""
WIDEST = 19
"""How many modules a folder below the top may hold."""

Graph = Mapping[str, frozenset[str]]
"""What each imports; names are those of files and folders, dotted, such as `package.room.__init__`."""


packages = pytest.mark.parametrize("package", [pytest.param(ROOT / path, id=path) for path in TOPS])


@packages
def test_few_modules_lie_at_the_top(package: Path) -> None:
    found, most = widths(package)[package], TOPS[package.relative_to(ROOT).as_posix()]
    assert found <= most, f"{found} modules lie flat at the top of {package.name}, at most {most} may: give them rooms"


@packages
def test_no_folder_is_crowded(package: Path) -> None:
    crowded = {folder.name: found for folder, found in widths(package).items() if folder != package and found > WIDEST}
    assert not crowded, f"folders of {package.name} with more than {WIDEST} modules, to be cut in two: {crowded}"


@packages
def test_no_modules_import_in_a_ring(package: Path) -> None:
    found = ring(imports(package))
    assert not found, f"modules of {package.name} import in a ring, move down what they share: {' -> '.join(found)}"


@packages
def test_no_folders_import_in_a_ring(package: Path) -> None:
    found = ring(between_neighbours(imports(package)))
    assert not found, f"folders of {package.name} import in a ring, move down what they share: {' -> '.join(found)}"


def widths(package: Path) -> Counter[Path]:
    """How many modules each folder holds, `__init__` among them, those of its own folders not."""
    return Counter(path.parent for path in package.rglob("*.py"))


def imports(package: Path) -> Graph:
    """What each module of a package imports of the package."""
    files = {path.relative_to(package.parent).with_suffix("").parts: path for path in package.rglob("*.py")}
    modules = {".".join(parts).removesuffix(".__init__"): ".".join(parts) for parts in files}
    return {
        ".".join(parts): frozenset(modules[name] for name in _imported(path, parts[:-1], modules)) - {".".join(parts)}
        for parts, path in files.items()
    }


def between_neighbours(graph: Graph) -> Graph:
    """The imports between what lies side by side in a folder: single modules, and folders with all that they hold.

    An import counts in the folder where its two ends part. So a room that imports a module above it, which imports the
    room, makes a ring, although the room's modules may differ.
    """
    lifted: dict[str, set[str]] = {}
    for importer, imported in graph.items():
        for each in imported:
            ours, theirs = importer.split("."), each.split(".")
            shared = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))))
            lifted.setdefault(".".join(ours[: shared + 1]), set()).add(".".join(theirs[: shared + 1]))
    return {importer: frozenset(imported) for importer, imported in lifted.items()}


def ring(graph: Graph) -> list[str]:
    """One ring of a graph, each name importing the next and the last being the first; empty where there is none."""
    try:
        TopologicalSorter({name: sorted(graph[name]) for name in sorted(graph)}).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))  # it lists who is imported before who imports
    return []


def _imported(path: Path, folder: tuple[str, ...], modules: Mapping[str, str]) -> Iterator[str]:
    """The modules that a file imports: of `from x import y` it is x.y where that is one, else x."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), ".".join(folder))
            names = [(f"{source}.{alias.name}", source) for alias in node.names]
        else:
            continue
        for name, otherwise in names:
            yield from [each for each in (name, otherwise) if each in modules][:1]


Write = Callable[[dict[str, str]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a package `p` of the given files, each empty but for its text."""

    def package(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / "p" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "p"

    return package


@pytest.mark.parametrize(
    "closing",
    [
        "import p.a",
        "import p.a as other",
        "from p import a",
        "from p.a import name",
        "from . import a",
        "from .a import name",
        "def late():\n    from p import a",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import Name",
        "try:\n    import numpy, p.a\nexcept ImportError:\n    pass",
    ],
)
def test_a_ring_of_modules_is_found_however_it_is_closed(write: Write, closing: str) -> None:
    package = write({"__init__.py": "", "a.py": "from p import b", "b.py": "from p.c import name", "c.py": closing})
    assert ring(imports(package)) in (
        ["p.a", "p.b", "p.c", "p.a"],
        ["p.b", "p.c", "p.a", "p.b"],
        ["p.c", "p.a", "p.b", "p.c"],
    )


def test_a_room_that_imports_its_own_package_makes_a_ring(write: Write) -> None:
    package = write({"__init__.py": "from p.room import a", "room/__init__.py": "", "room/a.py": "from p import name"})
    assert set(ring(imports(package))) == {"p.__init__", "p.room.a"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            {"x/a.py": "from p.y import c", "x/b.py": "", "y/c.py": "", "y/d.py": "def late():\n    import p.x.b"},
            {"p.x", "p.y"},
            id="two rooms",
        ),
        pytest.param(
            {"x/a.py": "import p.m", "x/b.py": "", "m.py": "import p.x.b"},
            {"p.x", "p.m"},
            id="a room and a module above it",
        ),
        pytest.param(
            {"x/in/a.py": "import p.y.c", "x/b.py": "", "y/c.py": "import p.x.b"}, {"p.x", "p.y"}, id="a room in a room"
        ),
        pytest.param(
            {"z/x/a.py": "import p.z.y.c", "z/x/b.py": "", "z/y/c.py": "import p.z.x.b"},
            {"p.z.x", "p.z.y"},
            id="two rooms in a room",
        ),
    ],
)
def test_a_ring_of_folders_is_found_where_no_modules_make_one(
    write: Write, files: dict[str, str], expected: set[str]
) -> None:
    graph = imports(write(files))
    assert not ring(graph)
    assert set(ring(between_neighbours(graph))) == expected


def test_rooms_above_each_other_make_no_ring(write: Write) -> None:
    graph = imports(
        write(
            {
                "__init__.py": "from p.x import a\nfrom p.y import name",
                "x/__init__.py": "from p.x.a import name",
                "x/a.py": "from p.y import c\nfrom p import ground",
                "y/__init__.py": "from p.y import c",
                "y/c.py": "import p.ground",
                "ground.py": "import numpy",
            }
        )
    )
    assert graph["p.x.a"] == {"p.y.c", "p.ground"}
    assert not ring(graph)
    assert not ring(between_neighbours(graph))


def test_modules_are_counted_folder_by_folder(write: Write) -> None:
    package = write({"__init__.py": "", "a.py": "", "x/__init__.py": "", "x/b.py": "", "x/c.py": "", "notes.txt": ""})
    assert widths(package) == {package: 2, package / "x": 3}
