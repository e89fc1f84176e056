"""What becomes of work that consumers have queued when the pass ends with an error."""

import pytest

from tests.engine.test_evaluate import Network, Recorder, batches, evaluate


class Queue(Recorder):
    """Works on what it was given after ``update``, until it is cancelled."""

    cancelled = 0

    def cancel(self):
        self.cancelled += 1


class Failing(Recorder):
    """Fails at its second batch, or when it adds up."""

    def __init__(self, error, *, at_last=False):
        super().__init__(name="failing")
        self.error = error
        self.at_last = at_last

    def update(self, batch, prediction):
        super().update(batch, prediction)
        if len(self.seen) == 2 and not self.at_last:
            raise self.error

    def all_reduce(self):
        if self.at_last:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("at_last", [False, True])
def test_an_error_cancels_what_is_queued(error, at_last):
    queues = [Queue(name="first"), Queue(name="second")]
    failing = Failing(error("stop"), at_last=at_last)
    with pytest.raises(error, match="stop"):
        evaluate(Network(), batches(1, 1, 1), queues[0], Recorder(), failing, queues[1])
    assert [queue.cancelled for queue in queues] == [1, 1]
    assert len(failing.seen) == (3 if at_last else 2)


def test_an_interrupted_loader_cancels_what_is_queued():
    def interrupted():
        yield from batches(1)
        raise KeyboardInterrupt

    queue = Queue()
    with pytest.raises(KeyboardInterrupt):
        evaluate(Network(), interrupted(), queue)
    assert (len(queue.seen), queue.cancelled) == (1, 1)


def test_nothing_is_cancelled_after_a_whole_pass():
    queue = Queue()
    evaluate(Network(), batches(1, 1), queue)
    assert (queue.reduced, queue.cancelled) == (1, 0)
