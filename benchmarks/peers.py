"""The peers behind one small face: `map` in order and one `call`, on a given number of processes.

Each is imported only when it starts, so that no contender carries another's modules.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

Function = Callable[[Any], Any]


class Peer(Protocol):
    def map(self, function: Function, inputs: Iterable[Any], chunksize: int) -> Iterator[Any]: ...

    def call(self, function: Function, argument: Any) -> Any: ...


def run_chunk(function: Function, inputs: list[Any]) -> list[Any]:
    return [function(x) for x in inputs]


def chunks(inputs: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(inputs)
    while chunk := list(itertools.islice(rest, size)):
        yield chunk


class Pool:
    """multiprocessing.Pool; a chunksize of 0 is the one that its `map` chooses, all results at the end."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def map(self, function: Function, inputs: Iterable[Any], chunksize: int) -> Iterator[Any]:
        return iter(self.pool.imap(function, inputs, chunksize) if chunksize else self.pool.map(function, inputs))

    def call(self, function: Function, argument: Any) -> Any:
        return self.pool.apply(function, (argument,))


class Executor:
    """Anything of the concurrent.futures family: ProcessPoolExecutor and loky."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor

    def map(self, function: Function, inputs: Iterable[Any], chunksize: int) -> Iterator[Any]:
        results: Iterator[Any] = self.executor.map(function, inputs, chunksize=chunksize)
        return results

    def call(self, function: Function, argument: Any) -> Any:
        return self.executor.submit(function, argument).result()


class Joblib:
    """joblib sizes its batches itself: the chunksize is not used."""

    def __init__(self, parallel: Any, delayed: Any) -> None:
        self.parallel, self.delayed = parallel, delayed

    def map(self, function: Function, inputs: Iterable[Any], chunksize: int) -> Iterator[Any]:
        delayed = self.delayed(function)
        results: Iterator[Any] = self.parallel(delayed(x) for x in inputs)
        return results

    def call(self, function: Function, argument: Any) -> Any:
        return next(self.map(function, [argument], 1))


class Ray:
    """One actor a process, chunks by hand, as Ray's own guide advises."""

    def __init__(self, ray: Any, actors: list[Any]) -> None:
        self.ray, self.actors = ray, actors

    def map(self, function: Function, inputs: Iterable[Any], chunksize: int) -> Iterator[Any]:
        from ray.util import ActorPool

        pool = ActorPool(self.actors)
        for results in pool.map(lambda actor, chunk: actor.run.remote(function, chunk), chunks(inputs, chunksize)):
            yield from results

    def call(self, function: Function, argument: Any) -> Any:
        return self.ray.get(self.actors[0].run.remote(function, [argument]))[0]


class Dask:
    """dask.distributed with chunks by hand."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def map(self, function: Function, inputs: Iterable[Any], chunksize: int) -> Iterator[Any]:
        futures = [self.client.submit(run_chunk, function, chunk, pure=False) for chunk in chunks(inputs, chunksize)]
        for future in futures:
            yield from future.result()

    def call(self, function: Function, argument: Any) -> Any:
        return self.client.submit(function, argument, pure=False).result()


@contextlib.contextmanager
def start(name: str, processes: int = 2) -> Iterator[Peer]:
    match name:
        case "pool":
            import multiprocessing

            with multiprocessing.Pool(processes) as pool:
                yield Pool(pool)
        case "executor":
            from concurrent.futures import ProcessPoolExecutor

            with ProcessPoolExecutor(processes) as executor:
                yield Executor(executor)
        case "loky":
            import loky

            with loky.ProcessPoolExecutor(processes) as executor:
                yield Executor(executor)
        case "joblib":
            from joblib import Parallel, delayed

            # Half a megabyte, so that arrays of one megabyte do travel as memory maps.
            with Parallel(processes, return_as="generator", max_nbytes="512K") as parallel:
                yield Joblib(parallel, delayed)
        case "ray":
            with _ray(processes) as peer:
                yield peer
        case "dask":
            from distributed import Client, LocalCluster

            with (
                LocalCluster(n_workers=processes, threads_per_worker=1, dashboard_address=None) as cluster,
                Client(cluster) as client,
            ):
                yield Dask(client)
        case _:
            raise ValueError(f"no peer is called {name!r}")


@contextlib.contextmanager
def _ray(processes: int) -> Iterator[Ray]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(num_cpus=processes, include_dashboard=False, log_to_driver=False, object_store_memory=256 * 2**20)
    try:
        actor = ray.remote(_Actor).options(num_cpus=1)
        yield Ray(ray, [actor.remote() for _ in range(processes)])
    finally:
        ray.shutdown()


class _Actor:
    def run(self, function: Function, inputs: list[Any]) -> list[Any]:
        return run_chunk(function, inputs)
