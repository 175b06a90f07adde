"""The smallest program that gets one result from loky."""

from loky import ProcessPoolExecutor


def noop(x: int) -> int:
    return x


if __name__ == "__main__":
    with ProcessPoolExecutor(2) as executor:
        print(executor.submit(noop, 1).result(), flush=True)
