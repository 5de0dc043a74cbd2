"""Work on many images, several at once: what fails is reported at the end, and loses nothing else.

Threads, not processes: the heavy parts (array kernels, compression, decoding) release Python's lock, so that
several cores are used without copying images and networks between processes. Where a launcher has started
several processes, on as many devices, each takes its own share of the images.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial

import torch

from wsss.errors import StageError, WsssError
from wsss.training.journal import Progress
from wsss.training.processes import OtherProcessError, gathered, is_main_process, num_processes

log = logging.getLogger(__name__)

SHARING = 3  # threads that read, write and prepare while an accelerator computes
EXPECTED = (WsssError, OSError, ValueError, RuntimeError, MemoryError)  # of one image, not of the program


def threads_for(device: torch.device | str) -> int | None:
    """How many images at once: None (as many as torch may use) on a CPU, a few for an accelerator."""
    return None if torch.device(device).type == "cpu" else SHARING


def work_on_images(
    groups: Sequence[Sequence[str]],
    work: Callable[[str], None],
    *,
    together: Callable[[Sequence[str]], None] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Exception]:
    """Do `work` for every image, several images at once.

    Args:
        groups: image ids; those of one group are worked on one after the other in one thread.
        work: does one image; what it raises is noted for that image alone.
        together: does a whole group at once (a batch); where it raises, its images are tried one by one.
        threads: how many at once; None: as many as torch may use (OMP_NUM_THREADS; all cores by default).
            Each of several keeps to one core.
        progress: told after each group.

    Returns:
        What went wrong, by image id, in the order of `groups`.
    """
    failures: dict[str, Exception] = {}
    total, done = sum(map(len, groups)), 0
    stop = threading.Event()

    def one_group(group: Sequence[str]) -> tuple[int, dict[str, Exception]]:
        return len(group), {} if stop.is_set() else _work_on_group(group, work, together)

    cores = torch.get_num_threads()
    threads = threads or cores
    with ThreadPoolExecutor(
        threads, initializer=partial(torch.set_num_threads, max(1, cores // threads))
    ) as pool:
        waiting = [pool.submit(one_group, group) for group in groups]
        try:
            for future in as_completed(waiting):
                size, found = future.result()
                failures |= found
                done += size
                if progress is not None:
                    progress(done, total, "images")
        except BaseException:  # an interruption, or a bug in `work`: the rest need not be tried
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        finally:
            torch.set_num_threads(cores)
    return {image_id: failures[image_id] for group in groups for image_id in group if image_id in failures}


def _work_on_group(
    group: Sequence[str], work: Callable[[str], None], together: Callable[[Sequence[str]], None] | None
) -> dict[str, Exception]:
    """What went wrong with the images of one group."""
    if together is not None and len(group) > 1:
        try:
            together(group)
        except EXPECTED as error:
            log.debug("a batch of %d images failed (%s); trying them one by one", len(group), error)
        else:
            return {}
    failures: dict[str, Exception] = {}
    for image_id in group:
        try:
            work(image_id)
        except EXPECTED as error:  # noqa: PERF203  (each image fails on its own)
            failures[image_id] = error
            log.warning("%s failed: %s", image_id, error)
    return failures


def of_everyone(progress: Progress | None, total: int) -> Progress:
    """Progress of all processes, as far as this one can tell: they work equally fast on equal shares.

    Args:
        progress: told of `total` images; None: nobody.
        total: images of all processes.

    Returns:
        To be told of the images that this process has done, of how many it had to do, and a note.
    """

    def tell(done: int, own: int, note: str) -> None:
        if progress is not None:
            left = (own - done) * num_processes()
            progress(min(max(total - left, 0), total), total, note)

    return tell


def everybodys(failures: Mapping[str, Exception], ids: Sequence[str]) -> dict[str, Exception]:
    """The failures of all processes, in each of them; returns when all have come here.

    Args:
        failures: of this process, by image id.
        ids: images of all processes; failures come in their order.
    """
    found = dict(failures)
    if num_processes() > 1:
        shares = gathered({image_id: str(error) for image_id, error in failures.items()})
        found |= {image_id: StageError(text) for share in shares for image_id, text in share.items()}
    return {image_id: found[image_id] for image_id in ids if image_id in found}


def report_failures(failures: dict[str, Exception], total: int, what: str) -> None:
    """Raise one error that names the first image and how many there are; nothing without failures.

    Args:
        failures: by image id; of all processes, where several share the images.
        total: images that were asked for.
        what: what these images lack, for example "refined maps".

    Raises:
        StageError: something failed.
        OtherProcessError: the same, in all processes but the first, which names it.
    """
    if not failures:
        return
    first, error = next(iter(failures.items()))
    verb = "has" if len(failures) == 1 else "have"
    text = f"{len(failures):,} of {total:,} images {verb} no {what}"
    if not is_main_process():
        raise OtherProcessError(f"{text}. See the message of the first process.") from error
    raise StageError(
        f"{text}; the first is {first}: {error} "
        "Mend or leave out such images and run the same command again; "
        "what was made of the others is kept."
    ) from error
