"""Extensions in C as AddressSanitizer and UndefinedBehaviorSanitizer build them, and programs that run with them."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import sysconfig


def build(source, directory):
    """The extension's library; a warning is an error."""
    library = directory / f"{source.stem}.so"
    include = sysconfig.get_path("include")
    warnings = ["-Wall", "-Wextra", "-Wconversion", "-Werror"]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = ["gcc", "-std=c11", "-shared", "-fPIC", "-O1", "-g", *warnings, *sanitizers, f"-I{include}"]
    subprocess.run([*command, str(source), "-o", str(library)], check=True)
    return library


def run(script, *arguments):
    """What a Python script says, with the sanitizers about it; it must end well."""
    asan = subprocess.run(["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True)
    environment = os.environ | {
        "LD_PRELOAD": asan.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter's own; tests of what leaks look for ours
        "PYTHONMALLOC": "malloc",  # so that a buffer has an end that is watched
    }
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout


def load(name, library):
    """For such scripts: the extension of this file, in the place of the one that is installed."""
    package, _, own = name.rpartition(".")
    spec = importlib.util.spec_from_file_location(name, library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    setattr(importlib.import_module(package), own, module)
