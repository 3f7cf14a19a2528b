"""Builds the Cython kernel; everything else about the package stands in pyproject.toml.

Every `.pyx` below kio/ is one extension. Sources and headers are named through the links in kio/, so that each
extension lands inside the package, and an sdist, which has no links, builds too. `depends` puts them into the sdist,
which would otherwise hold only the C made from them.
"""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

HEADERS = [str(path) for pattern in ("kio/*.pxd", "kio/*/*.pxd", "kio/*/*.h") for path in sorted(Path().glob(pattern))]


def extension(source: Path) -> Extension:
    """The extension module made from one .pyx file."""
    return Extension(
        ".".join(source.with_suffix("").parts),
        [str(source)],
        include_dirs=["kio/segments"],
        depends=[str(source), *HEADERS],
        extra_compile_args=["-O2", "-fno-strict-aliasing"],
    )


setup(
    options={"build_ext": {"parallel": True}},
    ext_modules=cythonize(
        [extension(source) for source in sorted(Path().glob("kio/*/*.pyx"))],
        # The kernel checks bounds itself, once for each buffer.
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
        },
    ),
)
