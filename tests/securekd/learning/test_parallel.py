"""Training in several processes: the same results in the same order, and no process is left behind."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children, current_process, spawn
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from torch import nn

from securekd.errors import RunError
from securekd.laboratory.parties import client
from securekd.laboratory.plan import Plan, make_plan
from securekd.learning.parallel import performer
from securekd.learning.tasks import TrainTask
from securekd.models.shape import InputShape
from tests.securekd.conftest import small


def tasks_of(plan: Plan, count: int) -> list[TrainTask]:
    """What the first clients train in the first round."""
    with TemporaryDirectory() as folder:
        clients = [client(plan, one, Path(folder)) for one in plan.clients[:count]]
        return [one.private_task("client", one.member.name, 1, state=None) for one in clients]


def test_one_process_and_two_give_the_same_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    main, told = sys.modules["__main__"], []
    original = spawn.get_preparation_data

    def look(name: str) -> dict:
        told.append(sys.modules["__main__"] is main)  # other threads may look for what is in it
        return original(name)

    monkeypatch.setattr(spawn, "get_preparation_data", look)
    plan = make_plan(small())
    tasks = tasks_of(plan, 4)
    found = []
    for workers in (1, 2):
        with performer(workers, len(tasks)) as perform:
            found.append(list(perform(tasks)))
    for alone, together in zip(*found, strict=True):
        assert alone.info == together.info
        assert alone.arrays.keys() == together.arrays.keys()
        for name, value in alone.arrays.items():
            np.testing.assert_array_equal(value, together.arrays[name])
    assert told == [True, True]


@pytest.mark.parametrize("workers", [None, 2, 5])
def test_a_process_that_may_have_no_children_trains_by_itself(
    workers: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a worker of `multiprocessing.Pool`."""
    monkeypatch.setitem(current_process()._config, "daemon", True)
    plan = make_plan(small())
    tasks = tasks_of(plan, 2)
    with performer(workers, len(tasks)) as perform:
        assert len(list(perform(tasks))) == 2


def test_what_belongs_to_the_program_trains_in_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "narrow", narrow, raising=False)
    plan = make_plan(small(clients={"models": ["__main__:narrow"]}))
    tasks = tasks_of(plan, 2)
    with performer(2, len(tasks)) as perform:
        assert len(list(perform(tasks))) == 2
        assert not active_children()


def narrow(shape: InputShape) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, shape.classes))


SCRIPT = """
import sys
from pathlib import Path

from torch import nn

from securekd.settings.config import parse_experiment
from securekd.learning.parallel import performer
from securekd.laboratory.plan import make_plan
from tempfile import TemporaryDirectory

from securekd.laboratory.parties import client

with open("ran", "a") as file:
    print("again", file=file)


class Net(nn.Sequential):
    def __init__(self, shape):
        super().__init__(nn.Flatten(), nn.Linear(64, shape.classes))


plan = make_plan(parse_experiment({
    "data": {"transfer": 20, "test": 120, "private": 240},
    "clients": {"count": 4, "models": ["MODEL"]},
    "training": {"epochs": 2, "plain_epochs": 1},
    "privacy": {"dp_sgd": False},
}))
clients = [client(plan, one, Path(TemporaryDirectory().name)) for one in plan.clients[:2]]
tasks = [one.private_task(one.key, state=None) for one in clients]
with performer(2, 2) as perform:
    print("trained", len(list(perform(tasks))))
"""


@pytest.mark.parametrize(
    ("program", "model"),
    [
        ("script.py", "logistic"),
        pytest.param("-", "logistic", marks=pytest.mark.slow),
        pytest.param("-i", "logistic", marks=pytest.mark.slow),
        pytest.param("-c", "__main__:Net", marks=pytest.mark.slow),
        pytest.param("script.py", "__main__:Net", marks=pytest.mark.slow),
    ],
)
def test_a_program_without_a_main_guard_trains_in_several_processes_and_runs_once(
    program: str, model: str, tmp_path: Path
) -> None:
    """A script, standard input, a command, and a session as a notebook has it."""
    text = SCRIPT.replace("MODEL", model)
    (tmp_path / "script.py").write_text(text)
    done = subprocess.run(
        [sys.executable, program, *([text] if program == "-c" else [])],
        input=f"exec({text!r})\n" if program == "-i" else text,
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "trained 2\n"), done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "ran").read_text() == "again\n"


def test_a_worker_that_dies_is_an_error_with_a_remedy() -> None:
    plan = make_plan(small())
    tasks = tasks_of(plan, 4)

    def kill_in_the_middle() -> None:
        with performer(2, len(tasks)) as perform:
            results = perform(tasks * 20)
            next(results)
            for child in active_children():
                os.kill(child.pid, signal.SIGKILL)  # type: ignore[arg-type]
            list(results)

    with pytest.raises(RunError, match="fewer runtime.workers"):
        kill_in_the_middle()


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    import tomli_w

    from tests.securekd.conftest import SMALL

    (tmp_path / "small.toml").write_text(tomli_w.dumps(SMALL))
    marker = f"marker-{os.getpid()}"
    parent = subprocess.Popen(
        [sys.executable, "-m", "securekd", "run", "small.toml", "--set", "runtime.workers=2",
         "--set", "student.epochs=2000", "--out", marker],
        cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    children: list[int] = []
    while len(children) < 2 and time.monotonic() < deadline:
        children = children_of(parent.pid)
        time.sleep(0.1)
    assert children
    parent.kill()
    parent.wait()
    while any(alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(child) for child in children)


@pytest.mark.parametrize("seconds", [0.5, pytest.param(0.0, marks=pytest.mark.slow)])
def test_workers_are_deaf_to_ctrl_c_from_their_start_on(seconds: float, tmp_path: Path) -> None:
    """It is the parent's to answer; a worker that hears it too prints a traceback of its own before it ends."""
    import tomli_w

    from tests.securekd.conftest import SMALL

    (tmp_path / "small.toml").write_text(tomli_w.dumps(SMALL))
    parent = subprocess.Popen(
        [sys.executable, "-m", "securekd", "run", "small.toml", "--set", "runtime.workers=2",
         "--set", "rounds=1", "--set", 'clients.models=["logistic"]', "--set", "student.model=logistic", "--out", "r"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    workers: list[int] = []
    while parent.poll() is None and not workers:
        workers = [child for child in children_of(parent.pid) if is_worker(child)]
        time.sleep(0.01)
    time.sleep(seconds)  # its imports take longer
    for worker in workers:
        os.kill(worker, signal.SIGINT)
    _, errors = parent.communicate(timeout=120)
    assert workers
    assert parent.returncode == 0, errors
    assert "Traceback" not in errors


def is_worker(pid: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    if not path.exists():
        pytest.skip("needs /proc to find child processes")
    return [int(word) for word in path.read_text().split()]


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
