"""Which errors Airflow retries: those of the outside world, and those nobody foresaw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowFailException

from include.errors import OutsideError, SluiceError


class FailedWithTheRun(AirflowFailException):
    """A task that ends a run failed because others had: whoever mends those clears it with them."""


@contextmanager
def where_a_retry_helps() -> Iterator[None]:
    """Around a task's work: an error that a retry cannot mend fails the task at its first try.

    Raises:
        AirflowFailException: In place of a SluiceError that is no OutsideError.
    """
    try:
        yield
    except OutsideError:
        raise
    except SluiceError as error:
        failed = AirflowFailException(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            failed.add_note(note)
        raise failed from None
