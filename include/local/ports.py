"""Ports of 127.0.0.1."""

from __future__ import annotations

import socket

from include.errors import LocalError


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether something listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def require_free(name: str, port: int, setting: str) -> None:
    """Make sure that a server can have its port.

    Raises:
        LocalError: Something listens there; the message says how to choose another.
    """
    if answers(port):
        raise LocalError(
            f"{name}: port {port} is taken by another program; "
            f"end it, or choose another: {setting}=<free port>"
        )
