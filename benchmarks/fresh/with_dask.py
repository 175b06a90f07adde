"""The smallest program that gets one result from dask.distributed."""

from distributed import Client


def noop(x: int) -> int:
    return x


if __name__ == "__main__":
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        print(client.submit(noop, 1).result(), flush=True)
