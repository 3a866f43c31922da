"""Builds the compiled engine where there is a C compiler; without one the reference engine runs."""

import os
from pathlib import Path

import greenlet
from Cython.Build import cythonize
from setuptools import Extension, setup

# With CFLAGS in the environment setuptools leaves out what Python itself was compiled with, the optimisation included;
# whoever only asks for a processor or for less debugging information does not mean that.
FLAGS = os.environ.get("CFLAGS", "")
OPTIMISED = ["-O3", "-DNDEBUG", "-fwrapv"] if FLAGS and "-O" not in FLAGS else []

ENGINE = Extension(
    "vthreads._core.engine.accelerated",
    ["src/vthreads/_core/engine/accelerated.pyx"],
    # For "greenlet/greenlet.h".
    include_dirs=[str(Path(greenlet.__file__).parents[1])],
    extra_compile_args=OPTIMISED,
    optional=True,
)
# The same source runs where it cannot be compiled.
EVENT_LOG = Extension(
    "vthreads.debug.event_log", ["src/vthreads/debug/event_log.py"], extra_compile_args=OPTIMISED, optional=True
)
# Its annotations are for mypy: C types stand in the .pxd. It never indexes beyond the end.
CHECKS = ("annotation_typing", "binding", "boundscheck", "wraparound", "initializedcheck")

setup(
    ext_modules=[
        *cythonize([ENGINE]),
        *cythonize([EVENT_LOG], compiler_directives=dict.fromkeys(CHECKS, False)),
    ]
)
