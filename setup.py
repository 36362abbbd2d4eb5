"""What is compiled. All else stands in ``pyproject.toml``."""

from __future__ import annotations

from setuptools import Extension, setup

HEADERS = ["src/meterite/wire/_decoder.h", "src/meterite/wire/_kept_series.h"]
SOURCES = {"wire/_line_protocol": HEADERS, "wire/_remote_write": HEADERS, "model/_standing": []}

setup(
    ext_modules=[
        Extension(
            f"meterite.{source.replace('/', '.')}",
            [f"src/meterite/{source}.c"],
            depends=headers,
            extra_compile_args=["-O2", "-fno-fast-math", "-fvisibility=hidden"],
            py_limited_api=True,
            optional=True,  # without a compiler plain Python does the work
        )
        for source, headers in SOURCES.items()
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
