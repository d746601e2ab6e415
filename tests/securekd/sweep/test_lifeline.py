"""Workers end with a sweep that is cut off, and only then."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from securekd.sweep.lifeline import Lifeline, end_with, lifeline

SWEEP = """
import signal, sys
from pathlib import Path
from securekd.sweep.lifeline import lifeline
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background is started without
with lifeline(Path(sys.argv[1])) as sweep:
    print(sweep.path, flush=True)
    sys.stdin.read()
"""

WORKER = """
import sys, time
from securekd.sweep.lifeline import Lifeline, end_with
for _ in range(2):  # as for two runs
    end_with(Lifeline(sys.argv[1], sys.argv[2], int(sys.argv[3])))
print("at work", flush=True)
sys.stdin.read()
"""


def begin(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def begin_sweep(folder: Path) -> tuple[subprocess.Popen[str], Lifeline]:
    process = begin(SWEEP, folder)
    return process, Lifeline(line_of(process), socket.gethostname(), process.pid)


def begin_worker(sweep: Lifeline) -> subprocess.Popen[str]:
    process = begin(WORKER, sweep.path, sweep.host, sweep.pid)
    assert line_of(process) == "at work"
    return process


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_at_once_when_the_sweep_is_cut_off(how: int, tmp_path: Path) -> None:
    process, sweep = begin_sweep(tmp_path)
    workers = [begin_worker(sweep) for _ in range(2)]
    process.send_signal(how)
    process.wait(timeout=20)
    assert [worker.wait(timeout=5) for worker in workers] == [1, 1]


def test_workers_of_a_sweep_that_ended_in_order_go_on(tmp_path: Path) -> None:
    process, sweep = begin_sweep(tmp_path)
    worker = begin_worker(sweep)
    process.communicate("", timeout=20)
    assert list(tmp_path.iterdir()) == []
    time.sleep(0.5)
    assert worker.poll() is None
    worker.communicate("", timeout=20)
    assert worker.returncode == 0


def test_whoever_comes_after_the_end_does_not_begin(tmp_path: Path) -> None:
    process, sweep = begin_sweep(tmp_path)
    process.kill()
    process.wait(timeout=20)
    assert begin(WORKER, sweep.path, sweep.host, sweep.pid).wait(timeout=20) == 1
    Path(sweep.path).unlink()
    assert begin(WORKER, sweep.path, sweep.host, sweep.pid).wait(timeout=20) == 1


def test_the_next_sweep_in_the_folder_does_not_keep_workers_of_the_last_alive(tmp_path: Path) -> None:
    process, sweep = begin_sweep(tmp_path)
    worker = begin_worker(sweep)
    worker.send_signal(signal.SIGSTOP)
    process.kill()
    process.wait(timeout=20)
    with lifeline(tmp_path) as following:
        assert [str(path) for path in tmp_path.iterdir()] == [following.path]
        worker.send_signal(signal.SIGCONT)
        assert worker.wait(timeout=5) == 1


def interrupted(folder: Path) -> None:
    with lifeline(folder) as sweep:
        end_with(sweep)
        end_with(replace(sweep, host="elsewhere", pid=os.getpid() + 1))
        raise KeyboardInterrupt


def test_the_sweeps_own_process_and_other_machines_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path)
    time.sleep(0.5)  # whoever waited for the lock has it by now
