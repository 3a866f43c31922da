"""Compile the accelerated engine if there is a C compiler; without one, vthreads runs on the reference engine.

VTHREADS_PURE=1 compiles nothing, and builds a wheel for every platform.
"""

import os
import sys
from pathlib import Path

import greenlet
from Cython.Build import cythonize
from setuptools import Extension, setup

# If CFLAGS is set, setuptools drops the flags that Python itself was compiled with, -O3 included. CFLAGS that only
# select a processor or omit debug information must not turn off the optimisation, so it is added here.
FLAGS = os.environ.get("CFLAGS", "")
OPTIMISED = ["-O3", "-DNDEBUG", "-fwrapv"] if FLAGS and "-O" not in FLAGS else []
# Python's own flags ask for debug information, which would be most of the extension modules. CFLAGS=-g keeps it.
if sys.platform != "win32" and "-g" not in FLAGS:
    OPTIMISED.append("-g0")
# A switch copies the C stack. The functions on it have small frames, and leave to others what comes before and after.
SMALL_FRAMES = [] if sys.platform == "win32" else ["-fno-inline-functions-called-once"]
# For the wheel of platforms without another one.
IS_PURE = os.environ.get("VTHREADS_PURE") == "1"

# Its parts and headers name each other by their paths below the package.
PACKAGE = Path("src/vthreads")
ENGINE = Extension(
    "vthreads._core.engine.accelerated",
    [str(PACKAGE / "_core/engine/accelerated.pyx")],
    # For "greenlet/greenlet.h", and for the headers of the parts.
    include_dirs=[str(Path(greenlet.__file__).parents[1]), str(PACKAGE)],
    depends=sorted(str(path) for kind in ("*.pxi", "*.h") for path in PACKAGE.rglob(f"compiled/{kind}")),
    extra_compile_args=OPTIMISED + SMALL_FRAMES,
)
# Python modules with a .pxd: without a compiler the same files run uncompiled. The annotations in them are for mypy,
# the C types are in the .pxd.
EVENT_LOG = Extension("vthreads.debug._event_log", ["src/vthreads/debug/_event_log.py"], extra_compile_args=OPTIMISED)
# It never indexes out of range, so the checks are off.
CHECKS = ("annotation_typing", "binding", "boundscheck", "wraparound", "initializedcheck")
# The path of a request.
HTTP = [
    Extension(
        ".".join(file.relative_to("src").with_suffix("").parts),
        [str(file.with_suffix(".py"))],
        extra_compile_args=OPTIMISED,
    )
    for file in sorted(PACKAGE.glob("serve/**/*.pxd"))
]

MODULES = []
if not IS_PURE:
    MODULES += cythonize([ENGINE], include_path=[str(PACKAGE)])
    MODULES += cythonize([EVENT_LOG], compiler_directives=dict.fromkeys(CHECKS, False))
    MODULES += cythonize(HTTP, compiler_directives={"annotation_typing": False})
for module in MODULES:
    # Set it here, not in the calls above: cythonize returns new extensions without this flag. Without the flag the
    # installation fails if there is no C compiler or no Python.h.
    module.optional = True

# Compile some modules at the same time. No more, because a compiler takes up to 400 MB: if memory does not suffice, the
# module is left out, as it is optional.
setup(ext_modules=MODULES, options={"build_ext": {"parallel": 4}})
