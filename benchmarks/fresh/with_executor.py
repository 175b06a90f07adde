"""The smallest program that gets one result from the standard library's executor."""

from concurrent.futures import ProcessPoolExecutor


def noop(x: int) -> int:
    return x


if __name__ == "__main__":
    with ProcessPoolExecutor(2) as executor:
        print(executor.submit(noop, 1).result(), flush=True)
