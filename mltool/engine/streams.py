"""Streams: where the batches of a run come from, by name.

A step takes one batch of each stream. The stream `main` counts the epochs: an epoch of the run is
one of its sampler. Any other stream goes its own pace: in the run's step n its sampler is asked
for epoch n div m and step n mod m, m being its own steps an epoch.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import torch

from mltool import distributed
from mltool.engine.data import Batch, BatchSource
from mltool.engine.loading import load
from mltool.engine.samplers import EmbedRows, Rows, Sampler

MAIN = "main"


@dataclass(frozen=True)
class Stream:
    """A source, and the sampler that says which of its rows make up a batch."""

    name: str
    source: BatchSource
    sampler: Sampler


# how rows of a source are embedded by the present model
EmbedderOf = Callable[[BatchSource], EmbedRows]


def read_streams(
    streams: Sequence[Stream], steps: range, *, workers: int, embed: EmbedderOf
) -> Generator[Mapping[str, Batch]]:
    """Yield this rank's batches of the run's steps `steps`, by the name of the stream.

    `workers` loading processes are shared among the streams.
    """
    each = -(-workers // len(streams))
    for stream in streams if steps else ():  # all of them before the first loader is forked
        stream.sampler.begin(steps.start // stream.sampler.steps, embed(stream.source))
    with ExitStack() as stack:
        batches = {
            stream.name: stack.enter_context(closing(read_stream(stream, steps, each, embed)))
            for stream in streams
        }
        for _ in steps:
            yield {name: next(of) for name, of in batches.items()}


def read_stream(stream: Stream, steps: range, workers: int, embed: EmbedderOf) -> Generator[Batch]:
    """Yield this rank's batches of one stream, across epochs, so that loading never pauses.

    Only where a sampler follows the model its next epoch waits for the present one to end.
    """
    sampler, source = stream.sampler, stream.source
    vectors = embed(source)
    first = steps.start
    while first < steps.stop:
        epoch = first // sampler.steps
        stop = steps.stop
        if sampler.follows_model:
            stop = min(stop, (epoch + 1) * sampler.steps)
        # before loaders are forked, as the sampler may use threads
        sampler.begin(epoch, vectors)
        numbers = range(first, stop)
        rows = _rows_of_rank(sampler, numbers, vectors)
        for number, batch in zip(numbers, load(source, rows, workers=workers), strict=True):
            yield _add_columns(batch, sampler, number)
        first = stop


def _rows_of_rank(sampler: Sampler, numbers: range, embed: EmbedRows) -> Iterator[Rows]:
    """Yield this rank's share of the batches of some steps, beginning epochs on the way."""
    for number in numbers:
        epoch, step = divmod(number, sampler.steps)
        if step == 0 and number > numbers.start:
            sampler.begin(epoch, embed)
        batch = sampler.batch(epoch, step)
        yield batch[_slice_of_rank(len(batch))]


def _add_columns(batch: Batch, sampler: Sampler, number: int) -> Batch:
    """Add the columns that the sampler gives a batch to those of the image list."""
    columns = {
        name: torch.from_numpy(of[_slice_of_rank(len(of))])
        for name, of in sampler.columns(*divmod(number, sampler.steps)).items()
    }
    return replace(batch, columns=batch.columns | columns) if columns else batch


def _slice_of_rank(size: int) -> slice:
    local_size = size // distributed.world()
    return slice(distributed.rank() * local_size, (distributed.rank() + 1) * local_size)
