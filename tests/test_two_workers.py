"""Two workers share the tests of a run: what both need is made once, both halves count, and none hangs for ever."""

import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from once import once


def test_what_two_workers_ask_for_is_done_once_in_a_run_and_again_where_it_failed(tmp_path):
    stamp, done = tmp_path / "folder" / "stamp", []

    def make():
        done.append(len(done))
        time.sleep(0.1)  # a second worker comes meanwhile

    workers = [threading.Thread(target=once, args=("one", stamp, make)) for _ in range(2)]
    for step in (threading.Thread.start, threading.Thread.join):
        for worker in workers:
            step(worker)
    assert len(done) == 1
    with pytest.raises(ZeroDivisionError):
        once("two", stamp, lambda: 1 / 0)
    for run in ("two", "two", "three", None, None):
        once(run, stamp, make)
    assert len(done) == 5


@pytest.mark.parametrize(
    ("codes", "expected"), [((0, 0), 0), ((5, 0), 0), ((0, 5), 0), ((5, 5), 5), ((1, 0), 1), ((0, 1), 1), ((2, 0), 2)]
)
def test_both_halves_of_the_tests_run_and_each_can_fail_the_command(root, tmp_path, codes, expected):
    shutil.copy(root / "Makefile", tmp_path)
    stand_in = tmp_path / "python"
    script = (
        f'echo "$@" >> {tmp_path}/asked; case "$*" in (*"-m not site"*) exit {codes[0]};; (*) exit {codes[1]};; esac'
    )
    stand_in.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    stand_in.chmod(0o755)
    command = ["make", "--silent", "test", f"BIN={tmp_path}", "INSTALLED=", "TESTS=tests/test_sde.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert (f"Error {expected}" in done.stderr) == (expected != 0), done.stderr
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    parts = ["not site", "site"][: 1 if codes[0] == 2 else 2]
    assert asked == [f"-m pytest -m {part} --numprocesses 2 --dist loadgroup tests/test_sde.py" for part in parts]


def test_one_worker_runs_all_tests_of_a_group(root, tmp_path):
    source = """
        import os, pathlib, time, pytest

        @pytest.mark.parametrize("k", range(6))
        @pytest.mark.parametrize("group", [pytest.param(g, marks=pytest.mark.xdist_group(g)) for g in ("one", "two")])
        def test_it(group, k):
            time.sleep(0.05)
            with pathlib.Path(__file__).with_name(group).open("a", encoding="utf-8") as file:
                print(os.environ["PYTEST_XDIST_WORKER"], file=file)
    """
    (tmp_path / "test_groups.py").write_text(textwrap.dedent(source), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-c", root / "pyproject.toml", "--rootdir", tmp_path]
    command += ["-p", "no:cacheprovider", "-o", "testpaths=", "-o", "pythonpath=", tmp_path]
    command += ["--numprocesses", "2", "--dist", "loadgroup"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout
    ran = {group: (tmp_path / group).read_text(encoding="utf-8").split() for group in ("one", "two")}
    assert {group: (len(workers), len(set(workers))) for group, workers in ran.items()} == dict.fromkeys(ran, (6, 1))


def test_a_test_that_hangs_is_ended_and_shows_where_it_stood(root, tmp_path):
    (tmp_path / "test_hang.py").write_text("import time\n\ndef test_hang():\n    time.sleep(60)\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-c", root / "pyproject.toml", "--rootdir", tmp_path]
    command += [
        "-p",
        "no:cacheprovider",
        "-o",
        "faulthandler_timeout=1",
        "-o",
        "testpaths=",
        "-o",
        "pythonpath=",
        tmp_path,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode != 0
    assert "Timeout (0:00:01)!" in done.stderr
    assert re.search(r'test_hang\.py", line 4 in test_hang', done.stderr)


def test_the_limit_of_a_test_lets_the_slowest_machine_pass(pytestconfig):
    assert float(pytestconfig.getini("faulthandler_timeout")) >= 1800
    assert pytestconfig.getini("faulthandler_exit_on_timeout")
    assert pytestconfig.option.nbmake_timeout >= 20 * 90
