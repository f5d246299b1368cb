"""Images per second with several processes, as DistributedDataParallel trains."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import asdict
from typing import Any

import torch
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from afdcd.benchmark.machine import wait
from afdcd.benchmark.settings import Setting, Variant
from afdcd.benchmark.sides import build_side, make_batch
from afdcd.benchmark.timing import use_tf32


def images_per_second(setting: Setting, variant: Variant, processes: int, repeats: int) -> float:
    """The speed of this package's step with ``setting.batch`` images in each process.

    Each process has a GPU or an equal share of the cores; gradients are averaged by gloo, on GPUs
    by NCCL.
    """
    threads = max(1, torch.get_num_threads() // processes)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    task = (processes, port, threads, asdict(setting), asdict(variant), repeats, results)
    multiprocessing.spawn(_train, args=task, nprocs=processes)
    return float(results.get())


def _train(
    rank: int,
    processes: int,
    port: int,
    threads: int,
    setting_fields: dict[str, Any],
    variant_fields: dict[str, Any],
    repeats: int,
    results: Any,
) -> None:
    torch.set_num_threads(threads)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    setting = Setting(**{**setting_fields, "crop": tuple(setting_fields["crop"])})
    variant = Variant(**variant_fields)
    gpu = setting.device == "cuda"
    if gpu:
        torch.cuda.set_device(rank)
    use_tf32(variant.tf32)
    distributed.init_process_group("nccl" if gpu else "gloo", rank=rank, world_size=processes)
    try:
        side, batch = build_side(setting, variant), make_batch(setting)
        model = DistributedDataParallel(
            side.model, device_ids=[rank] if gpu else None, broadcast_buffers=False
        )
        start = 0.0
        for number in range(repeats + 1):
            if number == 1:
                wait(setting.device)
                distributed.barrier()
                start = time.perf_counter()
            with side.precision():
                losses = model(batch)
            total = torch.stack([value.float() for value in losses.values()]).sum()
            side.optimizer.zero_grad()
            total.backward()
            side.optimizer.step()
        wait(setting.device)
        distributed.barrier()
        if rank == 0:
            seconds = time.perf_counter() - start
            results.put(processes * setting.batch * repeats / seconds)
    finally:
        distributed.destroy_process_group()
