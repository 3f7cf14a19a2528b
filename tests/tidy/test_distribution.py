"""What `pip install` would get: an sdist that builds by itself, and a wheel that brings nothing but kio."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.tidy.tree import LINKED, ROOT, files, sources

pytestmark = [pytest.mark.distribution, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(sdist, wheel), the wheel built from the sdist, from a copy that holds the project's files only."""
    copy = tmp_path_factory.mktemp("clone")
    for path in files():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, copy / path, follow_symlinks=False)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", str(copy)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,) = (copy / "dist").glob("*.tar.gz")
    (wheel,) = (copy / "dist").glob("*.whl")
    return sdist, wheel


def packaged(path: Path) -> str:
    """Where a source of the project stands in a distribution."""
    return "/".join(("kio", *path.parts) if path.parts[0] in LINKED else path.parts)


def test_the_sdist_holds_every_source_and_what_the_build_reads(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {packaged(path) for path in sources(".py", ".pyx", ".pxd", ".pyi", ".h", ".typed")}
    assert wanted | {"LICENSE", "README.md", "pyproject.toml", "setup.py"} <= names
    assert not any(name.startswith((*LINKED, "data")) for name in names)


def test_the_wheels_only_top_level_name_is_kio(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        top = {name.partition("/")[0] for name in archive.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"kio"}
    assert len(top) == 2


def test_the_wheel_holds_the_compiled_kernel_its_declarations_and_its_types(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    modules = [packaged(path).removesuffix(".pyx") for path in sources(".pyx")]
    assert modules
    for module in modules:
        assert any(name.startswith(module + ".") and name.endswith(".so") for name in names), module
        assert module + ".pyi" in names, f"{module} has no types for Python"
    assert {packaged(path) for path in sources(".pxd", ".py", ".pyi")} | {"kio/py.typed"} <= names


def test_every_module_of_the_wheel_imports(built: tuple[Path, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        archive.extractall(tmp_path)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import importlib, pkgutil, kio\n"
        f"assert kio.__file__.startswith({str(tmp_path)!r}), kio.__file__\n"
        "for module in pkgutil.walk_packages(kio.__path__, 'kio.'):\n"
        "    module.name.endswith('__main__') or importlib.import_module(module.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
