"""Which shards of surrogate images one of several processes makes."""

import re

from dfkd_edge.errors import ConfigError
from dfkd_edge.interfaces import WorkShare
from dfkd_edge.machine.process import rank, world_size


def work_share(shard: str | None) -> WorkShare:
    """Join the share of a batch job with the rank that torchrun gives this process.

    Raises:
        ConfigError: it is not i/n with 1 <= i <= n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", shard or "1/1")
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise ConfigError(
            f"'{shard}' is no share", where="--shard", hint="such as 3/8: the third of eight"
        )
    return WorkShare((index - 1) * world_size() + rank(), count * world_size())


def shards_of_job(first: WorkShare, num_shards: int) -> list[int]:
    """Numbers of the shards that the processes of torchrun make together.

    Args:
        first: the share of rank 0; those of the other ranks follow it.
        num_shards: of the whole set.
    """
    indices = range(first.index, first.index + world_size())
    return [number for number in range(num_shards) if number % first.count in indices]
