"""Channels: where alerts go. Each is an Airflow connection, whose type says how to reach it."""

from __future__ import annotations

import html
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.sdk import BaseHook
from airflow.sdk._shared.secrets_masker import redact
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from include.errors import ConnectionConfigError, one_line
from include.settings import settings

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier, Connection

SECONDS = 30.0  # for all channels at once; the DAG processor ends what takes 50
CALL_SECONDS = 10
ABSENT = "no connection"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Message:
    """What whoever is on call is told.

    Attributes:
        title: One line: which DAG, and what is wrong.
        lines: What else there is to know; the last is a link.
        facts: The same for programs; values that JSON has.
    """

    title: str
    lines: Sequence[str]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join([self.title, *self.lines])


def send(message: Message, seconds: float = SECONDS) -> None:
    """Send a message to every channel that there is, to all at once, and log what came of it.

    Nothing is raised, and nothing waited for longer than told: an alert must not fail or hold up
    what it tells of.

    Args:
        message: What to send.
        seconds: After so many a channel has failed.
    """
    names = settings().alerts
    outcomes = dict.fromkeys(names, f"it did not answer within {seconds:g} s")
    threads = [
        threading.Thread(target=_send_to, args=(name, message, outcomes), daemon=True)
        for name in names
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    _report(message, dict(outcomes))


def _send_to(name: str, message: Message, outcomes: dict[str, str]) -> None:
    try:
        connection = BaseHook.get_connection(name)
    except AirflowNotFoundException:
        outcomes[name] = ABSENT
        return
    except Exception as error:  # noqa: BLE001  (whatever a secrets backend raises)
        outcomes[name] = _failure(error)
        return
    try:
        # Of a webhook, the path or the query is the secret.
        address = urlsplit(connection.host or "")
        mask_secret([address.path.strip("/"), address.query])
        # Not `notifier(context)`: that takes the text for a template of Jinja's, and what dbt says
        # of a model is full of braces.
        notifier(connection, message).notify({})
        outcomes[name] = ""
    except Exception as error:  # noqa: BLE001  (whatever a channel raises)
        outcomes[name] = _failure(error)


def _failure(error: Exception) -> str:
    return str(redact(one_line(f"{type(error).__name__}: {error}")))


def _report(message: Message, outcomes: Mapping[str, str]) -> None:
    told = [name for name, failure in outcomes.items() if not failure]
    for name, failure in outcomes.items():
        if failure not in ("", ABSENT):
            log.warning("%s was not told that %s: %s", name, message.title, failure)
    if told:
        log.info("%s: told %s", message.title, ", ".join(told))
    elif all(failure == ABSENT for failure in outcomes.values()):
        ids = " or ".join(outcomes)
        log.info("%s: nobody is told, there is no connection %s", message.title, ids)


def notifier(connection: Connection, message: Message) -> BaseNotifier:
    """What sends a message by a connection.

    Args:
        connection: Of one of the types in :data:`KINDS`.
        message: What it will send.

    Raises:
        ConnectionConfigError: Its type is another, or something is missing from its extra.
    """
    if kind := KINDS.get(connection.conn_type or ""):
        return kind(connection, message)
    raise ConnectionConfigError(
        f"connection {connection.conn_id!r}: type {connection.conn_type!r}: expected one of"
        f" {', '.join(KINDS)}"
    )


def _slack_webhook(connection: Connection, message: Message) -> BaseNotifier:
    from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

    return SlackWebhookNotifier(
        slack_webhook_conn_id=connection.conn_id, text=_slack_text(message), timeout=CALL_SECONDS
    )


def _slack(connection: Connection, message: Message) -> BaseNotifier:
    from airflow.providers.slack.notifications.slack import SlackNotifier

    return SlackNotifier(
        slack_conn_id=connection.conn_id,
        channel=_extra(connection, "channel"),
        text=_slack_text(message),
        timeout=CALL_SECONDS,
    )


def _slack_text(message: Message) -> str:
    # https://docs.slack.dev/messaging/formatting-message-text#escaping
    return html.escape(message.text, quote=False)


def _mail(connection: Connection, message: Message) -> BaseNotifier:
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    lines = (html.escape(line) for line in (message.title, *message.lines))
    return SmtpNotifier(
        smtp_conn_id=connection.conn_id,
        to=_extra(connection, "to"),
        subject=message.title,
        html_content="<br>\n".join(lines),
    )


def _webhook(connection: Connection, message: Message) -> BaseNotifier:
    from airflow.providers.http.notifications.http import HttpNotifier

    return HttpNotifier(
        http_conn_id=connection.conn_id,
        json={"text": message.text, **message.facts},
        extra_options={"timeout": CALL_SECONDS},
    )


def _extra(connection: Connection, key: str) -> str:
    if not (value := connection.extra_dejson.get(key)):
        raise ConnectionConfigError(
            f"connection {connection.conn_id!r}: extra.{key} is empty; set it in Airflow's"
            " connection"
        )
    return str(value)


KINDS: dict[str, Callable[[Connection, Message], BaseNotifier]] = {
    "slackwebhook": _slack_webhook,
    "slack": _slack,
    "smtp": _mail,
    "http": _webhook,
}
