"""The group of ranks: real processes over gloo."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from dfkd_edge.errors import ArtifactError, EnvironmentLackingError
from dfkd_edge.machine.joining import joined
from dfkd_edge.machine.process import prepare_process, refuse_shared_cards
from dfkd_edge.machine.ranks import part_of
from tests.fixtures.ranks import as_command, start_ranks

BATCH, PARTS = 7, 5


def gradients(num_images: int, ours: slice) -> nn.Linear:
    """Sum losses over a rank's part of a batch, and divide by the whole batch."""
    torch.manual_seed(0)
    network, image_ND = nn.Linear(4, 3), torch.randn(BATCH, 4)
    if len(image_ND[ours]):
        (network(image_ND[ours]).square().sum() / num_images).backward()
    return network


def gradient_of_part(number: int) -> torch.Tensor:
    return torch.randn(1000, generator=torch.Generator().manual_seed(number))


def meet(folder: Path) -> None:
    """Do everything that ranks do together, and leave what came out."""
    with joined() as group:
        prepare_process("cpu", 2, group)
        assert group.gather(f"{group.index}") == ["0", "1", "2"][: group.count]
        assert group.tell(f"of {group.index}") == "of 0"
        assert group.any_of(group.index == group.count - 1)
        assert not group.any_of(False)
        network = gradients(BATCH, group.part_of(BATCH))
        group.add_up_gradients(network.parameters())
        few = gradients(2, part_of(2, group.index, group.count))  # none for the third rank
        group.add_up_gradients(few.parameters())
        total = group.sum_in_order(PARTS, gradient_of_part, torch.empty(1000))
        whole, half = torch.tensor([group.index + 1]), torch.ones(2, dtype=torch.float64)
        group.add_up([whole, half])
        cores = len(os.sched_getaffinity(0))
        assert torch.get_num_threads() == 2
        found = {
            "weight": network.weight.grad,
            "few": few.weight.grad,
            "total": total,
            "whole": whole,
            "half": half,
            "cores": cores,
        }
        torch.save(found, folder / f"{group.index}.pt")
    assert len(os.sched_getaffinity(0)) >= cores


@pytest.mark.parametrize("count", [1, 2, 3])
def test_ranks_sum_uneven_parts_to_the_gradient_of_the_whole_batch(
    tmp_path: Path, count: int
) -> None:
    ended = start_ranks(count, tmp_path, meet, tmp_path).wait()
    assert [rank.code for rank in ended] == [0] * count, ended
    alone, few = gradients(BATCH, slice(None)), gradients(2, slice(2))
    total = gradient_of_part(0)
    for number in range(1, PARTS):
        total = total + gradient_of_part(number)
    for index in range(count):
        found = torch.load(tmp_path / f"{index}.pt", weights_only=True)
        torch.testing.assert_close(found["weight"], alone.weight.grad)
        torch.testing.assert_close(found["few"], few.weight.grad)
        assert torch.equal(found["total"], total)  # bit for bit: the order is that of the parts
        assert found["whole"].item() == sum(range(1, count + 1))
        assert found["half"].tolist() == [count, count]
        assert found["cores"] <= max(1, -(-len(os.sched_getaffinity(0)) // count))


def test_parts_are_uneven_by_one_at_most_and_leave_nothing_out() -> None:
    parts = [range(8)[part_of(8, index, 3)] for index in range(3)]
    assert [number for part in parts for number in part] == list(range(8))
    assert {len(part) for part in parts} == {2, 3}
    assert not range(2)[part_of(2, 0, 3)]


def ask_for_cards() -> None:
    with joined() as group:
        refuse_shared_cards(f"cuda:{group.index}", group)
        with pytest.raises(EnvironmentLackingError, match="2 ranks would share one card"):
            refuse_shared_cards("cuda:0", group)


def test_two_ranks_are_refused_one_card_before_either_opens_it(tmp_path: Path) -> None:
    assert [rank.code for rank in start_ranks(2, tmp_path, ask_for_cards).wait()] == [0, 0]


def wait_for_the_first() -> None:
    with joined() as group:
        before = time.process_time()
        if group.is_first:
            time.sleep(1)
        group.wait()
        sys.stdout.write(f"{time.process_time() - before:.2f}")


def test_a_rank_that_waits_takes_no_core(tmp_path: Path) -> None:
    ended = start_ranks(2, tmp_path, wait_for_the_first).wait()
    assert float(ended[1].out) < 0.2


def fail(index: int) -> None:
    as_command(partial(_fail_in_group, index))


def _fail_in_group(index: int) -> None:
    with joined() as group:
        if group.index == index:
            raise ArtifactError("a file is cut short", where="shard-00001")
        if index < 0:
            raise EnvironmentLackingError("no weights here")
        group.wait()


@pytest.mark.parametrize(
    ("index", "codes", "line"),
    [
        (1, [1, 1, 1], "error: rank 1 on {node}: a file is cut short (shard-00001)\n"),
        (0, [1, 1, 1], "error: a file is cut short (shard-00001)\n"),
        (-1, [4, 4, 4], "error: no weights here\n"),
    ],
    ids=["a rank", "the first", "all alike"],
)
def test_what_ends_one_rank_ends_all_with_one_line(
    tmp_path: Path, index: int, codes: list[int], line: str
) -> None:
    ended = start_ranks(3, tmp_path, fail, index).wait()
    assert "".join(rank.err for rank in ended) == line.format(node=os.uname().nodename)
    assert [rank.code for rank in ended] == codes


def wait_in_vain() -> None:
    as_command(_wait_in_vain)


def _wait_in_vain() -> None:
    with joined() as group:
        if not group.is_first:
            sys.stderr.write("here\n")
            sys.stderr.flush()
            time.sleep(60)
        group.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_a_rank_that_is_killed_or_hangs_ends_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    started = start_ranks(2, tmp_path, wait_in_vain)
    while "here" not in started.err(1):
        time.sleep(0.05)
    other = started[1].pid or 0
    os.kill(other, number)
    if number == signal.SIGSTOP:  # nothing is heard of it, until torchrun ends the others
        os.kill(started[0].pid or 0, signal.SIGTERM)
        started[0].join()
        os.kill(other, signal.SIGKILL)
    ended = started.wait()
    assert ended[0].err.count("the same command goes on\n") == 1
    assert ended[0].code == (1 if number == signal.SIGKILL else 143)
