"""Builds the Cython kernel; everything else about the package stands in pyproject.toml.

Sources are named through the link in kio/ so that each extension lands inside the package.
"""

from Cython.Build import cythonize
from setuptools import Extension, setup

KERNEL = {
    "kio.segments._kernel": ["kio/segments/_kernel.pyx"],
    "kio.frontdoor._dispatch": ["kio/frontdoor/_dispatch.pyx"],
}

setup(
    ext_modules=cythonize(
        [Extension(name, sources, extra_compile_args=["-O2", "-fno-strict-aliasing"]) for name, sources in KERNEL.items()],
        language_level=3,
        compiler_directives={"boundscheck": False, "wraparound": False, "cdivision": True, "initializedcheck": False},
    )
)
