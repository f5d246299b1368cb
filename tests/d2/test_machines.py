"""Several machines: they meet, say who is missing, and don't start what doesn't fit together."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml

from afdcd.cli.train_net import main
from afdcd.d2 import machines
from afdcd.d2.machines import Machine, meet, rank_problems
from afdcd.utils.problems import SetupError

from helpers.d2_runs import assert_same_tensors, checkpoint, train_detectron2

ROOT = Path(__file__).parents[2]
KILLER = """
import os, signal
import torch
from afdcd.losses import LOSSES, DistillationLoss

@LOSSES.register("killer")
class Killer(DistillationLoss):
    TERMS = {"killer": 1.0}
    DEFAULT_TAPS = ("backbone.res5", "backbone.res5")

    def forward(self, student, teacher, *, context):
        if context.part[0] == 1 and context.step == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"killer": student.square().mean()}
"""


@pytest.fixture
def url() -> str:
    with socket.create_server(("", 0)) as free:
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


def together(url: str, *own: Machine, timeout: float = 20.0) -> list:
    """What each machine gets, or the error that it raises."""

    def one(machine: Machine):
        try:
            return meet(machine, url, timeout=timeout)
        except SetupError as error:
            return error

    with ThreadPoolExecutor(len(own)) as pool:
        return list(pool.map(one, own))


def test_they_meet_in_any_order(url):
    own = [Machine(rank, 3, 8, "model_0000399.pth", 77) for rank in (2, 0, 1)]
    assert together(url, *own) == [sorted(own, key=lambda machine: machine.rank)] * 3
    with socket.create_server(("", int(url.rpartition(":")[2]))):
        pass  # the port is free for the processes


@pytest.mark.parametrize(
    ("second", "part"),
    [
        ({"processes": 4}, "--num-gpus differs between machines: 8 on machine 0, 4 on machine 1"),
        ({"machines": 3}, "--num-machines differs between machines"),
        ({"start": "model_0000399.pth"}, "OUTPUT_DIR must be a folder that all of them share"),
        ({"rank": 0}, "can't listen on port"),
    ],
)
def test_all_hear_what_does_not_fit(url, second: dict, part: str):
    first = Machine(0, 2, 8)
    found = together(url, first, replace(first, **{"rank": 1, **second}), timeout=4.0)
    errors = [str(result) for result in found if isinstance(result, SetupError)]
    assert len(errors) == 2 or "rank" in second
    assert any(part in text for text in errors)


def test_two_of_one_rank(url):
    found = together(url, Machine(0, 3, 1), Machine(1, 3, 1), Machine(1, 3, 1))
    assert all("two machines have --machine-rank 1" in str(result) for result in found)


def test_who_is_missing_is_said(url, caplog, monkeypatch):
    monkeypatch.setattr(machines, "SAY_EVERY", 0.5)
    with caplog.at_level(logging.INFO):
        (zero,) = together(url, Machine(0, 3, 1), timeout=1.5)
        (one,) = together(url, Machine(1, 3, 1), timeout=1.5)
    assert "machine 1, 2 of 3 didn't come within 2 s" in str(zero)
    assert "--machine-rank 1" in str(zero)
    assert "machine 0 at 127.0.0.1" in str(one) and "--machine-rank 0?" in str(one)
    assert caplog.text.count("Waiting for machine 1, 2 of 3") >= 2


def test_strangers_are_ignored(url):
    port = int(url.rpartition(":")[2])

    def stranger() -> None:
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"rank": 1}\n', b""):
            for _ in range(50):
                try:
                    with socket.create_connection(("127.0.0.1", port), timeout=1) as line:
                        line.sendall(words)
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(stranger)
        assert all(isinstance(r, list) for r in together(url, Machine(0, 2, 1), Machine(1, 2, 1)))


@pytest.mark.parametrize(
    ("rank", "count", "address", "part"),
    [
        (2, 2, "tcp://a:1", "must be from 0 to 1"),
        (-1, 2, "tcp://a:1", "must be from 0 to 1"),
        (0, 0, "auto", "at least 1"),
        (0, 2, "auto", "needs --dist-url tcp://"),
        (0, 2, "tcp://a", "needs --dist-url tcp://"),
        (0, 2, "tcp://a:port", "needs --dist-url tcp://"),
    ],
)
def test_wrong_options(rank: int, count: int, address: str, part: str, configs, capsys):
    (problem,) = rank_problems(rank, count, address)
    assert part in problem
    flags = ["--num-machines", str(count), "--machine-rank", str(rank), "--dist-url", address]
    words = ["--runtime", "detectron2", *flags, "--config-file", str(configs / "student.yaml")]
    assert main(words) == 2
    assert part in capsys.readouterr().err


def command(config: Path, output: Path, *flags: str) -> list[str]:
    words = [sys.executable, str(ROOT / "tools/train_net.py"), "--runtime", "detectron2", *flags]
    return [*words, "--config-file", str(config), "OUTPUT_DIR", str(output)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_waiting_ends_at_once(configs, tmp_path, url, number: int, code: int):
    flags = ("--num-machines", "2", "--machine-rank", "0", "--dist-url", url, "--num-gpus", "0")
    words = command(configs / "student.yaml", tmp_path / "run", *flags)
    words += ["SOLVER.IMS_PER_BATCH", "4"]
    # What starts the tests may have told its children to ignore Ctrl-C.
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, preexec_fn=listen) as process:
        try:
            for line in process.stderr:
                if "Waiting for machine 1 of 2" in line:
                    break
            start = time.monotonic()
            process.send_signal(number)
            process.wait(20)
            process.stderr.read()
        finally:
            process.kill()
    assert process.returncode == code and time.monotonic() - start < 10


def test_two_machines_train_as_two_processes(configs, tmp_path, url):
    config = configs / "distilled.yaml"
    words = [
        command(
            config,
            tmp_path / "two",
            *("--num-machines", "2", "--machine-rank", str(rank), "--dist-url", url),
            *("--num-gpus", "0"),
        )
        + ["SOLVER.IMS_PER_BATCH", "4"]
        for rank in (0, 1)
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(w, env=environment, stderr=subprocess.PIPE, text=True) for w in words
    ]
    for process in running:
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said[-2000:]
    one = tmp_path / "one"
    train_detectron2(config, one, "SOLVER.IMS_PER_BATCH", "4", num_gpus=2)
    assert_same_tensors(checkpoint(tmp_path / "two")["model"], checkpoint(one)["model"])


def test_a_killed_process_is_said_in_a_line(configs, tmp_path, capfd):
    (configs / "killer.py").write_text(KILLER)
    content = {
        "_BASE_": "distilled.yaml",
        "IMPORTS": ["killer.py"],
        "MODEL": {"DISTILLER": {"LOSSES": {"killer": {"NAME": "killer"}}}},
        "SOLVER": {"IMS_PER_BATCH": 4},
    }
    (configs / "killed.yaml").write_text(yaml.safe_dump(content))
    words = ["--runtime", "detectron2", "--num-gpus", "2"]
    words += ["--config-file", str(configs / "killed.yaml"), "OUTPUT_DIR", str(tmp_path / "run")]
    assert main(words) == 1
    said = capfd.readouterr().err
    assert "process 1 was ended by SIGKILL" in said and "--resume" in said
    assert "ProcessExitedException" not in said


def test_gpus_that_are_not_there_are_refused(configs, tmp_path, capsys):
    words = ["--runtime", "detectron2", "--num-gpus", "8"]
    words += ["--config-file", str(configs / "student.yaml"), "OUTPUT_DIR", str(tmp_path / "run")]
    assert main([*words, "MODEL.DEVICE", "cuda", "SOLVER.IMS_PER_BATCH", "16"]) == 2
    assert "--num-gpus 8, but PyTorch sees no GPU" in capsys.readouterr().err
