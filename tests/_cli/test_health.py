"""`health` where no hub answers; with one: tests/e2e/test_deploy_units.py."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from h3trio._cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_address_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The line says which address was asked, and why nobody answered."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # it doesn't listen
        port = bound.getsockname()[1]
        assert main(["health", "--host", "0.0.0.0", "--port", str(port)], environ={}) == 1
    url = f"http://127.0.0.1:{port}/healthz/ready"
    assert capsys.readouterr().err == f"h3trio: can't reach {url}: Connection refused\n"
    assert main(["health", "--unix", f"{tmp_path}/no.sock"], environ={}) == 1
    assert "no.sock/healthz/ready: No such file" in capsys.readouterr().err
