"""Builds the compiled engine where there is a C compiler; without one the reference engine runs."""

from pathlib import Path

import greenlet
from Cython.Build import cythonize
from setuptools import Extension, setup

ENGINE = Extension(
    "vthreads._core.engine.accelerated",
    ["src/vthreads/_core/engine/accelerated.pyx"],
    # For "greenlet/greenlet.h".
    include_dirs=[str(Path(greenlet.__file__).parents[1])],
    optional=True,
)

setup(ext_modules=cythonize([ENGINE]))
