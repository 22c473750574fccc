"""Addresses, secrets and the environment, as every reward over the network meets them. No network library here."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from cgrpo.errors import UserError

VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)  # of the environment, by its name
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@contextmanager
def set_up(where: str) -> Iterator[None]:
    """For making an HTTP client, which reads the environment. Raises UserError that names the variable at fault, but
    not its value: a proxy's address may hold a password."""
    try:
        yield
    except Exception as error:  # each of the network library's many ways
        names = CERTIFICATES if isinstance(error, OSError) else PROXIES
        at_fault = [name for name in names if os.environ.get(name) or os.environ.get(name.lower())]
        reason = str(error) if isinstance(error, ImportError | OSError) else "not an address"
        cure = f"fix {' or '.join(at_fault)} in the environment" if at_fault else "fix the url"
        raise UserError(f"{where}: HTTP can't be set up ({reason})", cure) from None


def read_secret(where: str, variable: str, otherwise: str = "", *, ascii_only: bool = False) -> str:
    """The token or key in an environment variable. Raises UserError, which never shows what may be the secret.

    ``otherwise``: what else can be done if it is not set.
    """
    if not VARIABLE.fullmatch(variable):
        raise UserError(f"{where}: the token's variable must be the name of an environment variable that holds it")
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise UserError(f"{where}: the environment variable {variable} is not set", f"export {variable}=...{otherwise}")
    if not secret.isprintable() or (ascii_only and (not secret.isascii() or " " in secret)):
        raise UserError(f"{where}: the environment variable {variable} has odd characters", "set it anew")
    return secret


def is_loopback(host: str) -> bool:
    """Whether only this machine itself can reach what listens on ``host``."""
    host = host.lower().rstrip(".")
    try:
        return _address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_local(host: str) -> bool:
    """Whether ``host`` is this machine, by any of its names; others may reach it, too."""
    try:
        if _address(host).is_unspecified:  # 0.0.0.0 is what servers print
            return True
    except ValueError:
        pass
    return is_loopback(host) or host.lower().rstrip(".") == socket.gethostname().lower()


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host)
    return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address
