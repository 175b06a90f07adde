"""What the soak deploys."""

import upswell

app = upswell.App("soak")


@app.function(max_containers=2)
def square(x: int) -> int:
    return x * x


@app.function(schedule=upswell.Period(hours=1), max_containers=1)
def hourly() -> str:
    return "an hour has passed"
