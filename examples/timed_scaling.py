"""Warm containers by day, none by night: two functions with a schedule change how a third one scales.

    upswell deploy timed_scaling.py
    upswell function autoscaler timed-scaling answer

The next deploy goes back to what the decorator says.
"""

import time

import upswell

app = upswell.App("timed-scaling")
BERLIN = "Europe/Berlin"


@app.function(scaledown_window=300)
def answer(question: str) -> str:
    time.sleep(0.05)  # a model, say
    return question.upper()


@app.function(schedule=upswell.Cron("0 6 * * 1-5", timezone=BERLIN))
def begin_the_day():
    print(upswell.Function.from_name("timed-scaling", "answer").update_autoscaler(min_containers=2))


@app.function(schedule=upswell.Cron("0 22 * * *", timezone=BERLIN))
def begin_the_night():
    print(upswell.Function.from_name("timed-scaling", "answer").update_autoscaler(min_containers=0))
