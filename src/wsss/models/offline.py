"""The offline switch: one flag makes the whole program refuse any network access.

Set WSSS_OFFLINE=1 (or `wsss --offline`): downloads raise, the Hugging Face libraries are told to stay
offline, and an interpreter-wide guard refuses every connection and name look-up that leaves this machine,
whatever library asks for it.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any, Final

from wsss.errors import WeightsError

VARIABLE: Final = "WSSS_OFFLINE"
_LIBRARY_VARIABLES: Final = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_LOCAL_HOSTS: Final = frozenset({"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})
_state = {"offline": False, "guarded": False}


def is_offline() -> bool:
    """Whether network access is refused: by `set_offline`, or by WSSS_OFFLINE in the environment."""
    return _state["offline"] or os.environ.get(VARIABLE, "").lower() in ("1", "true", "yes", "on")


def forbid_network() -> None:
    """Refuse every connection of this process and its children to another machine."""
    set_offline(True)


def set_offline(offline: bool) -> None:
    """Turn the switch on or off; also for the Hugging Face libraries, loaded or not."""
    _state["offline"] = offline
    for variable in (VARIABLE, *_LIBRARY_VARIABLES):
        if offline:
            os.environ[variable] = "1"
        else:
            os.environ.pop(variable, None)
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        vars(constants)["HF_HUB_OFFLINE"] = offline  # it was read from the environment at import
    if offline and not _state["guarded"]:
        sys.addaudithook(_guard)  # can't be removed; does nothing while the switch is off
        _state["guarded"] = True


def check_online(what: str) -> None:
    """Raise `WeightsError` when `what` needs the network and the switch is on."""
    if is_offline():
        raise WeightsError(
            f"{what} needs the network, which {VARIABLE}=1 forbids. "
            "Unset it, or copy the files here from a machine that has them."
        )


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: refuse connections and look-ups of other hosts."""
    if not event.startswith("socket.") or not _state["offline"]:
        return
    host: Any = None
    if event in ("socket.connect", "socket.sendto") and len(arguments) == 2:
        connection, address = arguments
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            host = address[0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if host is None or str(host) in _LOCAL_HOSTS or str(host).startswith("127."):
        return
    raise WeightsError(
        f"A connection to {host} was refused: the program runs with {VARIABLE}=1. "
        "Unset it to allow network access."
    )
