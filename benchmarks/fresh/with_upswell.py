"""The smallest program that gets one result from upswell."""

import upswell

app = upswell.App("fresh")


@app.function()
def noop(x: int) -> int:
    return x


if __name__ == "__main__":
    with app.run():
        print(noop.remote(1), flush=True)
