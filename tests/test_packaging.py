"""What is built and installed: one package, whole, with its data, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from tests.test_layering import FOLDERS, SOURCES

ROOT = Path(__file__).parents[1]
SIBLINGS = FOLDERS[1:]
DATA = ("grammar.lark", "reference.md")


def run(code: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def copy_tree(target: Path) -> Path:
    """The sources without the links, as a file system without links would hold them."""
    for folder in FOLDERS:
        shutil.copytree(
            ROOT / folder,
            target / folder,
            ignore=lambda directory, names: [
                n for n in names if n == "__pycache__" or (Path(directory) / n).is_symlink()
            ],
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)
    return target


@pytest.fixture(scope="module")
def bare_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_tree(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def linked_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = copy_tree(tmp_path_factory.mktemp("linked"))
    for folder in SIBLINGS:
        (tree / "effc" / folder).symlink_to(f"../{folder}", target_is_directory=True)
    return tree


def build(tree: Path, out: Path) -> Path:
    """Build a wheel of a tree with the backend itself: no isolation, no network."""
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(out)!r}))"
    return out / run(code, tree).splitlines()[-1]


@pytest.fixture(scope="module", params=("linked_tree", "bare_tree"))
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel would put into site-packages."""
    tree, out = request.getfixturevalue(request.param), tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(build(tree, out)) as wheel:
        names = wheel.namelist()
        assert len(set(names)) == len(names)
        wheel.extractall(out / "site")
    return out / "site"


def test_links_are_relative_and_point_to_the_siblings() -> None:
    for folder in SIBLINGS:
        assert os.readlink(ROOT / "effc" / folder) == f"../{folder}"


def test_wheel_holds_one_package(installed: Path) -> None:
    top = {path.name for path in installed.iterdir()}
    assert top == {"effc", next(n for n in top if n.endswith(".dist-info"))}


def test_wheel_holds_every_source_once(installed: Path) -> None:
    built = {str(p.relative_to(installed)) for p in installed.rglob("*.py")}
    paths = {p.relative_to(ROOT) for p in SOURCES.values()}
    expected = {str(p if p.parts[0] == "effc" else Path("effc") / p) for p in paths}
    assert built == expected


def test_wheel_holds_its_data(installed: Path) -> None:
    code = (
        "import effc, importlib.resources as r; folder = r.files('effc.spec');"
        "print(effc.__file__);"
        f"[folder.joinpath(n).read_text() for n in {DATA!r}];"
        "print(*sorted(p.name for p in folder.joinpath('presets').iterdir()))"
    )
    where, presets = run(code, installed, PYTHONPATH=str(installed)).splitlines()
    assert Path(where) == installed / "effc" / "__init__.py"
    assert presets.split() == sorted(p.name for p in (ROOT / "spec" / "presets").iterdir())


def test_wheel_holds_the_pages_of_the_codes(installed: Path) -> None:
    folder = Path("effc") / "explain" / "pages"
    built = {page.name for page in (installed / folder).iterdir()}
    assert built == {page.name for page in (ROOT / folder).iterdir()}


@pytest.mark.parametrize("installed", ("bare_tree",), indirect=True)
def test_installed_package_compiles_and_knows_no_siblings(installed: Path) -> None:
    code = (
        "import effc, torch;"
        "fast = effc.optimize(torch.nn.Linear(4, 2), example_inputs=(torch.ones(3, 4),));"
        "print(tuple(fast(torch.ones(5, 4)).shape), len(effc.__path__))"
    )
    assert run(code, installed, PYTHONPATH=str(installed)) == "(5, 2) 1"


def test_command_is_declared(installed: Path) -> None:
    (points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "effc = effc.cli:main" in points.read_text()
    assert callable(__import__("effc.cli", fromlist=["main"]).main)


def test_checkout_runs_without_its_links(bare_tree: Path) -> None:
    assert not (bare_tree / "effc" / "passes").exists()
    code = (
        "import effc, effc.passes.registry as r;"
        "from effc.spec.parse import parse_policy;"
        "parse_policy('version = 1', methods=r.method_infos());"
        "print(len(effc.__path__), r.__file__)"
    )
    parts, where = run(code, bare_tree).split()
    assert (parts, Path(where)) == ("2", bare_tree / "passes" / "registry.py")


def test_fallback_is_idle_where_the_links_are(linked_tree: Path) -> None:
    assert run("import effc; print(len(effc.__path__))", linked_tree) == "1"


@pytest.mark.parametrize("name", SIBLINGS)
def test_sibling_is_no_regular_package(name: str) -> None:
    """From the repository root, `import kernels` must not shadow a package of that name."""
    code = (
        "import importlib.util as u\n"
        f"spec = u.find_spec({name!r})\n"
        "print('absent' if spec is None else 'namespace' if spec.origin is None else spec.origin)"
    )
    found = run(code, ROOT)
    assert found in ("absent", "namespace") or not Path(found).is_relative_to(ROOT / name)


def test_transformers_takes_no_sibling_for_a_library() -> None:
    code = "from transformers.utils import is_kernels_available as a; print(a())"
    installed = any(dist.name == "kernels" for dist in metadata.distributions())
    assert run(code, ROOT, HF_HUB_OFFLINE="1") == str(installed)
