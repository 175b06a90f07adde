"""The smallest program that gets one result from the standard library's pool."""

from multiprocessing import Pool


def noop(x: int) -> int:
    return x


if __name__ == "__main__":
    with Pool(2) as pool:
        print(pool.apply(noop, (1,)), flush=True)
