"""Every error that Sluice raises, grouped by what the caller does next.

SluiceError
├── ConfigError            fix the file named in the message; a retry never helps
│   ├── SourceFileError        include/sources/<name>.yml
│   ├── ConnectionConfigError  an Airflow connection
│   ├── EdgeFileError          dags/edges/<schedule>.pickle
│   ├── ScheduleFileError      dbt/schedules.yml
│   └── DbtProjectError        dbt/
├── OutsideError           the outside world failed; a retry may help
│   ├── ExtractError           the tap or its database
│   ├── LoadError              the target or what it delivered
│   ├── WarehouseError         a statement of ours in the warehouse
│   └── DbtRunError            the warehouse, or dbt, while a model was built
├── SchemaChangeError      columns of the source changed, and its file says freeze
├── SpoolError             a spool is lost, or not what extract has left; clear extract
├── SourceDataError        rows of the source cannot be taken; mend them, then retry by hand
├── DbtModelError          a model cannot be built as it is; mend it, then retry by hand
├── DbtTestFailure         the data failed a test; look at the rows, then retry by hand
└── LocalError             a `make` command cannot go on; the message says what to do
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable


class SluiceError(Exception):
    """The root of the tree; its message is one line that says what to do."""


class ConfigError(SluiceError):
    """A file of the user's is wrong: the message names file, key, value and expected form."""


class SourceFileError(ConfigError):
    """A source file cannot be used."""


class ConnectionConfigError(ConfigError):
    """An Airflow connection lacks something or holds what cannot be."""


class EdgeFileError(ConfigError):
    """An edge pickle is missing, stale, foreign or tampered with.

    Attributes:
        why: Which of these, without the file's name and what to do.
    """

    why = ""


class ScheduleFileError(ConfigError):
    """What is told of a schedule cannot be used."""


class DbtProjectError(ConfigError):
    """The dbt project does not parse or a selector in it cannot be used."""


class OutsideError(SluiceError):
    """The outside world failed; the task is retried."""


class ExtractError(OutsideError):
    """The tap failed, or wrote what cannot be trusted."""


class LoadError(OutsideError):
    """The target failed, or delivered something other than what was sealed."""


class WarehouseError(OutsideError):
    """A statement that Sluice itself sent to the warehouse failed."""


class DbtRunError(OutsideError):
    """The warehouse or dbt gave up on a model, seed, snapshot or hook."""


class SchemaChangeError(SluiceError):
    """Columns of a stream that is told to freeze them are others than at its last load."""


class SpoolError(SluiceError):
    """There is no whole spool as extract has sealed it."""


class SourceDataError(SluiceError):
    """Rows of the source that cannot be replicated as they are."""


class DbtModelError(SluiceError):
    """The SQL of a model, seed, snapshot or hook is wrong, or does not fit its data."""


class DbtTestFailure(SluiceError):
    """The data failed a test of error severity."""


class LocalError(SluiceError):
    """A command of the local set-up cannot go on."""


def one_line(text: object) -> str:
    """An error, or what a program said, without line breaks.

    >>> one_line("Compilation Error  a node is missing")
    'Compilation Error a node is missing'
    """
    return " ".join(str(text).split())


def nearest(word: object, known: Iterable[str]) -> str:
    """The end of a message about a word that is not known.

    >>> nearest("inremental", ["full_table", "incremental"])
    "; did you mean 'incremental'?"
    >>> nearest("x", ["full_table", "incremental"])
    '; expected one of full_table, incremental'
    """
    listed = list(known)
    close = difflib.get_close_matches(str(word), listed, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; expected one of {', '.join(listed)}"


def status_of(work: Callable[[], object]) -> int:
    """Do a program's work; returns its exit status.

    An error of this tree is one line on standard error; any other is a bug, and raised.
    """
    try:
        work()
    except SluiceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
