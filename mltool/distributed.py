"""Ranks, gathering with gradient and averaging: all uses of torch.distributed.

Each rank embeds its share of the batch, every rank computes the whole loss over all rows, and
gradients are averaged after backward. The backward of `gather` sums over ranks, so the average is
the gradient of one process with the whole batch. Example with 2 ranks, whose vectors are a and b:
both compute L(a, b). The backward of `gather` gives rank 0 dL/da from its loss plus dL/da from rank
1's, so 2 dL/da; the average of the parameters' gradients over both ranks is then
(2 dL/da a' + 2 dL/db b') / 2, that of one process.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

from mltool.errors import UsageError


@contextmanager
def session(device: torch.device) -> Iterator[None]:
    """Join the process group that torchrun or Slurm started, if any, and leave it at the end.

    Raises UsageError for several nodes without MASTER_ADDR.
    """
    rank_and_world = _rank_and_world()
    if rank_and_world is None:
        yield
        return
    rank, world = rank_and_world
    if "MASTER_ADDR" not in os.environ and int(os.environ.get("SLURM_NNODES", "1")) > 1:
        raise UsageError(
            "the processes are on several nodes; set MASTER_ADDR to the first one "
            "(scontrol show hostnames lists them)"
        )
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, rank=rank, world_size=world)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _rank_and_world() -> tuple[int, int] | None:
    """Read (rank, world) from torchrun's or srun's environment; None for a single process.

    Raises UsageError for a RANK without WORLD_SIZE.
    """
    if "RANK" in os.environ:
        if "WORLD_SIZE" not in os.environ:
            raise UsageError("RANK is set but WORLD_SIZE is not; start with torchrun or srun")
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if "SLURM_STEP_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        return int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    return None


def local_rank() -> int:
    """Return the index of this process's device on its machine, 0 when alone."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))


def rank() -> int:
    """Return the number of this process, 0 when alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """Return the number of processes, 1 when alone."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.size = len(rows)
        gathered = [torch.empty_like(rows) for _ in range(world())]
        distributed.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        # all_reduce writes in place, and other backward functions may read the same gradient
        summed = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(summed)
        start = rank() * ctx.size
        return summed[start : start + ctx.size]


def gather(rows: Tensor) -> Tensor:
    """Gather rows [B, ...] of all ranks in rank order, [world * B, ...], with gradient."""
    return _Gather.apply(rows) if world() > 1 else rows


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over ranks, all in one message."""
    if world() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    distributed.all_reduce(flat)
    flat /= world()
    averages = flat.split([g.numel() for g in gradients])
    for gradient, average in zip(gradients, averages, strict=True):
        gradient.copy_(average.view_as(gradient))


def broadcast_buffers(module: nn.Module) -> None:
    """Give every rank the running statistics of rank 0, before all evaluate the same model."""
    if world() > 1:
        for buffer in module.buffers():
            distributed.broadcast(buffer, 0)


def gather_objects(value: object) -> list:
    """Return the values of all ranks, in rank order."""
    if world() == 1:
        return [value]
    values: list = [None] * world()
    distributed.all_gather_object(values, value)
    return values


def any_rank(flag: bool, device: torch.device) -> bool:
    """Return whether the flag is set on at least one rank; all ranks get the same answer."""
    if world() == 1:
        return flag
    value = torch.tensor(int(flag), device=device)
    distributed.all_reduce(value, op=distributed.ReduceOp.MAX)
    return bool(value.item())


def barrier() -> None:
    """Wait until every rank has called this."""
    if world() > 1:
        distributed.barrier()
