"""What another container sends again, of inputs that have their outputs already, is no news."""

from typing import Any

import pytest

from upswell.sdk.outcomes import Failure
from upswell.sdk.submission import Submission
from upswell.wire import messages as m
from upswell.wire.payload import pack


class Nowhere:
    """An inbox whose server never hears anything."""

    def submit(self, *_: Any) -> None:
        pass


@pytest.fixture
def submission() -> Submission:
    """Two segments of ten inputs each."""
    one = Submission(Nowhere(), "fc-1", "ap-1/f", "map", parent="")  # type: ignore[arg-type]
    for _ in range(2):
        one.send(pack(list(range(10))), 10, False)
    return one


def hear(submission: Submission, first: int, values: list[int]) -> Any:
    news = submission.settle([(first, values)])
    submission.answered(m.Outputs("fc-1", first, len(values)))
    return news


def test_everything_is_news_once(submission: Submission) -> None:
    assert hear(submission, 3, [3, 4]) == [(3, [3, 4])]
    assert hear(submission, 3, [3, 4]) == []
    assert hear(submission, 0, [0, 1, 2]) == [(0, [0, 1, 2])]


def test_what_overlaps_is_news_in_part(submission: Submission) -> None:
    hear(submission, 12, [12, 13])
    hear(submission, 16, [16])
    assert hear(submission, 11, [11, 12, 13, 14, 15, 16, 17]) == [(11, [11]), (14, [14, 15]), (17, [17])]


def test_of_a_segment_that_is_settled_nothing_is_news(submission: Submission) -> None:
    hear(submission, 0, list(range(10)))
    assert hear(submission, 2, [2]) == []
    assert hear(submission, 10, [10]) == [(10, [10])]
    hear(submission, 11, list(range(11, 20)))
    assert hear(submission, 19, [19]) == []


def test_a_failure_is_news_of_the_inputs_that_have_no_output(submission: Submission) -> None:
    hear(submission, 4, [4])
    error = ValueError()
    assert submission.settle([(3, Failure(error, 3))]) == [(3, Failure(error, 1)), (5, Failure(error, 1))]
