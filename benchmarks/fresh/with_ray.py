"""The smallest program that gets one result from Ray."""

import ray


@ray.remote
def noop(x: int) -> int:
    return x


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    print(ray.get(noop.remote(1)), flush=True)
