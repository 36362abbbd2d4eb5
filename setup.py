"""The compiled decoders. All else stands in ``pyproject.toml``."""

from __future__ import annotations

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "meterite.wire._line_protocol",
            ["src/meterite/wire/_line_protocol.c"],
            depends=["src/meterite/wire/_kept_series.h"],
            extra_compile_args=["-O2", "-fno-fast-math", "-fvisibility=hidden"],
            py_limited_api=True,
            optional=True,  # without a compiler the plain decoders do the work
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
