"""Several machines meet before their processes start: who is missing is said, and Ctrl-C works.

PyTorch's own meeting, which comes after it, waits silently and can't be interrupted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from afdcd.utils.problems import SetupError

logger = logging.getLogger(__name__)

# Seconds between messages about who is waited for, and of one attempt to connect.
SAY_EVERY, ATTEMPT = 30.0, 1.0
_LARGEST = 1 << 16


@dataclass(frozen=True)
class Machine:
    """What a machine says of itself when they meet.

    Attributes:
        rank: from 0.
        machines, processes: how many machines it expects, and its own processes.
        start: name of the checkpoint that it would go on from; empty for a new run.
        size: of this file, in bytes.
    """

    rank: int
    machines: int
    processes: int
    start: str = ""
    size: int = 0


def rank_problems(machine_rank: int, num_machines: int, dist_url: str) -> list[str]:
    """What is wrong with the machines' options, whatever the others do."""
    if num_machines < 1:
        return [f"--num-machines must be at least 1; got {num_machines}"]
    if not 0 <= machine_rank < num_machines:
        return [
            f"--machine-rank must be from 0 to {num_machines - 1} (--num-machines {num_machines}); "
            f"got {machine_rank}"
        ]
    if num_machines > 1 and not _is_address(dist_url):
        return [
            f"--num-machines {num_machines} needs --dist-url tcp://<address of machine 0>:<port>, "
            f"the same on every machine; got {dist_url}"
        ]
    return []


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "tcp" and bool(parts.hostname) and bool(parts.port)
    except ValueError:
        return False


def meet(own: Machine, dist_url: str, *, timeout: float) -> list[Machine]:
    """Wait until all machines are there, and compare what they say of themselves.

    Args:
        own: this machine.
        dist_url: ``tcp://address:port`` of machine 0, whose port is free again afterwards.
        timeout: seconds to wait.

    Returns:
        all machines by rank.

    Raises:
        SetupError: some didn't come in time, or they don't fit together; on every machine alike.
        KeyboardInterrupt: on Ctrl-C, at once.
    """
    parts = urlsplit(dist_url)
    assert parts.hostname and parts.port
    if own.rank:
        answer = _report(own, parts.hostname, parts.port, timeout)
    else:
        answer = _receive(own, parts.port, timeout)
    if answer["problems"]:
        raise SetupError(answer["problems"])
    return [Machine(**content) for content in answer["machines"]]


def machine_problems(machines: Mapping[int, Machine]) -> list[str]:
    """In what machines, by rank, don't fit together."""
    problems = []
    for name, option in (("machines", "--num-machines"), ("processes", "--num-gpus")):
        values = {rank: getattr(machine, name) for rank, machine in machines.items()}
        if len(set(values.values())) > 1:
            problems.append(f"{option} differs between machines: {_listed(values)}")
    starts = {
        rank: f"from {machine.start} ({machine.size} bytes)" if machine.start else "anew"
        for rank, machine in machines.items()
    }
    if len(set(starts.values())) > 1:
        problems.append(
            f"machines would start differently: {_listed(starts)}. OUTPUT_DIR must be a folder "
            "that all of them share, since machine 0 writes the checkpoints there"
        )
    return problems


def _listed(values: Mapping[int, Any]) -> str:
    return ", ".join(f"{value} on machine {rank}" for rank, value in sorted(values.items()))


def _receive(own: Machine, port: int, timeout: float) -> dict[str, Any]:
    """Machine 0's part: take the others' words, and give all of them the same answer."""
    met = {0: own}
    lines: list[socket.socket] = []
    problems: list[str] = []
    waiting = _Waiting(timeout)
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server(("", port), backlog=64))
        except OSError as error:
            text = f"--dist-url: this machine can't listen on port {port}: {error.strerror}"
            raise SetupError([f"{text}. Is another run using it?"]) from error
        listener.settimeout(ATTEMPT)
        while len(met) < own.machines:
            missing = [rank for rank in range(own.machines) if rank not in met]
            names = f"machine {', '.join(map(str, missing))} of {own.machines}"
            if waiting.is_over(f"{names} at port {port}"):
                command = f"--machine-rank {missing[0]}"
                problems.append(
                    f"{names} didn't come within {timeout:.0f} s: start the same command there "
                    f"with {command}, and see that it reaches this machine's port {port}"
                )
                break
            with contextlib.suppress(TimeoutError):
                line, _ = listener.accept()
                stack.enter_context(line)
                machine = _machine(line)
                if machine is None:
                    continue  # not one of ours
                lines.append(line)
                if machine.rank in met:
                    problems.append(f"two machines have --machine-rank {machine.rank}")
                    break
                met[machine.rank] = machine
        problems = problems or machine_problems(met)
        answer = {"problems": problems, "machines": [asdict(met[rank]) for rank in sorted(met)]}
        for line in lines:
            with contextlib.suppress(OSError):
                line.sendall(json.dumps(answer).encode() + b"\n")
    return answer


def _machine(line: socket.socket) -> Machine | None:
    try:
        return Machine(**_read(line))
    except (OSError, ValueError, TypeError):
        return None


def _report(own: Machine, host: str, port: int, timeout: float) -> dict[str, Any]:
    """The other machines' part: tell machine 0, and wait for its answer."""
    waiting = _Waiting(timeout)
    place = f"machine 0 at {host}:{port}"
    while True:
        try:
            with socket.create_connection((host, port), timeout=ATTEMPT) as line:
                line.sendall(json.dumps(asdict(own)).encode() + b"\n")
                while True:
                    try:
                        return _read(line)
                    except TimeoutError:
                        if waiting.is_over(f"the other machines ({place} is there)"):
                            raise SetupError([f"{place} gave no answer"]) from None
        except socket.gaierror as error:
            raise SetupError([f"--dist-url: no address of {host}: {error.strerror}"]) from error
        except (OSError, ValueError):
            if waiting.is_over(place):
                text = f"{place} can't be reached within {timeout:.0f} s: is the same command"
                raise SetupError([f"{text} running there, with --machine-rank 0?"]) from None
            time.sleep(ATTEMPT)


def _read(line: socket.socket) -> dict[str, Any]:
    """A line of JSON. Raises TimeoutError, OSError or ValueError."""
    line.settimeout(ATTEMPT)
    data = b""
    while not data.endswith(b"\n"):
        part = line.recv(4096)
        if not part or len(data) > _LARGEST:
            raise ValueError("no whole line")
        data += part
    content = json.loads(data)
    if not isinstance(content, dict):
        raise ValueError("no object")
    return content


class _Waiting:
    """Says every so often who is waited for, until the time is over."""

    def __init__(self, timeout: float) -> None:
        self._end, self._said = time.monotonic() + timeout, -SAY_EVERY
        self._timeout = timeout

    def is_over(self, whom: str) -> bool:
        """Whether the time is over."""
        now = time.monotonic()
        if now - self._said >= SAY_EVERY:
            self._said = now
            logger.info("Waiting for %s, %.0f s at most", whom, max(self._end - now, 0))
        return now > self._end
