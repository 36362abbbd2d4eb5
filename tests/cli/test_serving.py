"""Starting and stopping the server process, with a small app in the place of ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest

GOOD = """
import os
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        os.write(1, b"up\\n")  # at once, since another worker writes there, too
        await receive()
        os.write(1, b"committed\\n")
        await send({"type": "lifespan.shutdown.complete"})
"""
BAD = """
from meterite.model.errors import SchemaTooNewError
async def app(scope, receive, send):
    raise SchemaTooNewError("schema-too-new", "The file is newer than the program.")
"""


@contextmanager
def start(tmp_path, source: str, workers: int = 1):
    """The process; it doesn't outlive a test that fails."""
    (tmp_path / "small.py").write_text(textwrap.dedent(source))
    (tmp_path / "main.py").write_text(
        "from meterite.cli import serving\n"
        "serving.APP = 'small:app'\n"
        "if __name__ == '__main__':\n"
        f"    serving.serve(host='127.0.0.1', port=0, workers={workers}, reload=False)\n"
    )
    with subprocess.Popen(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_lets_the_app_finish_and_ends_with_0(tmp_path, workers):
    """After SIGTERM each worker's shut-down runs to its end, and the exit status is 0 within 10 s."""
    with start(tmp_path, GOOD, workers) as process:
        assert [process.stdout.readline() for _ in range(workers)] == ["up\n"] * workers
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert out.count("committed") == workers


LEFT = {
    "a thread": "threading.Thread(target=time.sleep, args=(3600,)).start()",
    "a pool": "kept.append(ThreadPoolExecutor(1)); kept[0].submit(time.sleep, 3600)",
    "a daemon's pool": "threading.Thread(target=pooling, daemon=True).start(); time.sleep(0.2)",
}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("left", LEFT)
def test_a_thread_left_behind_doesnt_keep_the_process(tmp_path, workers, left):
    """Whatever a plug-in leaves running, SIGTERM ends with 0 within 10 s; Python would wait for each of these."""
    leaves = f"""
        import threading, time
        from concurrent.futures import ThreadPoolExecutor
        kept = []
        def pooling():
            kept.append(ThreadPoolExecutor(1))
            kept[0].submit(time.sleep, 3600)
        {LEFT[left]}
        """
    with start(tmp_path, textwrap.dedent(leaves) + GOOD, workers) as process:
        assert [process.stdout.readline() for _ in range(workers)] == ["up\n"] * workers
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert out.count("committed") == workers


@pytest.mark.parametrize(("workers", "status"), [(1, 2), (2, 3)])
def test_a_file_that_is_too_new_is_one_line_and_no_0(tmp_path, workers, status):
    """The start says the sentence, without a traceback, and exits with 2 (3 where a worker found it)."""
    with start(tmp_path, BAD, workers) as process:
        _, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert "The file is newer than the program." in err
    assert "Traceback" not in err
