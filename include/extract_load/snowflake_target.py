"""target-snowflake, able to reach another server than the account's own.

The target has no setting for host or port; this subclass of its connector takes them from the
key ``server`` of the same configuration. On a real account that key is empty and nothing differs.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, ClassVar

from singer_sdk import typing as th
from target_snowflake.connector import SnowflakeConnector
from target_snowflake.sinks import SnowflakeSink
from target_snowflake.target import TargetSnowflake

import include.snowflake_session  # noqa: F401  (it lets statements take their time)

# Nobody who reads a load's log can do anything about it.
warnings.filterwarnings("ignore", message="Python .* will reach its end of life")


class ServerConnector(SnowflakeConnector):
    """The target's connector, with host, port and protocol from its configuration."""

    def get_connect_args(self) -> dict[str, Any]:
        """The target's own arguments and the server's."""
        own, more = super().get_connect_args(), self.config.get("server") or {}
        parameters = {**own["session_parameters"], **more.get("session_parameters", {})}
        return {**own, **more, "session_parameters": parameters}


class ServerSink(SnowflakeSink):
    """The target's sink on that connector."""

    connector_class = ServerConnector


class SluiceTarget(TargetSnowflake):
    """The target on that sink, which ends as its program does."""

    default_sink_class = ServerSink

    def _setup_signal_handlers(self) -> None:
        """Leave SIGTERM to this program: the target's own handler drains and exits with 0."""

    config_jsonschema: ClassVar[dict[str, Any]] = {
        **TargetSnowflake.config_jsonschema,
        "properties": {
            **TargetSnowflake.config_jsonschema["properties"],
            **th.Property("server", th.ObjectType(additional_properties=True)).to_dict(),
        },
    }


if __name__ == "__main__":
    sys.exit(SluiceTarget.cli())
