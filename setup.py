"""The compiled decoders. All else stands in ``pyproject.toml``."""

from __future__ import annotations

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            f"meterite.wire.{name}",
            [f"src/meterite/wire/{name}.c"],
            depends=["src/meterite/wire/_decoder.h", "src/meterite/wire/_kept_series.h"],
            extra_compile_args=["-O2", "-fno-fast-math", "-fvisibility=hidden"],
            py_limited_api=True,
            optional=True,  # without a compiler the plain decoders do the work
        )
        for name in ("_line_protocol", "_remote_write")
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
