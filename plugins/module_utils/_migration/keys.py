# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key pair that one side of a migration makes for it, and that ends with it."""

from __future__ import annotations

import os
import subprocess

from ansible_collections.stillpoint.criu.plugins.module_utils._migration.wire import ChannelError

KEY = "key.pem"
CERTIFICATE = "cert.pem"
# Given whole, for the host's own openssl.cnf may say anything or be missing.
_CONFIGURATION = b"""\
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = stillpoint migration
[extensions]
basicConstraints = critical, CA:FALSE
"""


def make(folder: str) -> str:
    """Make ``key.pem`` (0600) and ``cert.pem`` in a folder, which is made too (0700); return the certificate as PEM.

    The key (EC P-256) is written by the openssl program itself, and is in no argument and no environment.

    Raises:
        ChannelError: openssl is missing or failed; the message says what to do.
        OSError: the folder cannot be made.
    """
    os.makedirs(folder, exist_ok=True)
    os.chmod(folder, 0o700)
    key, certificate = os.path.join(folder, KEY), os.path.join(folder, CERTIFICATE)
    os.close(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-sha256"]
    argv += ["-config", "/dev/stdin", "-days", "3650", "-keyout", key, "-out", certificate]
    try:
        # Not run_command: agents have no AnsibleModule.  pylint: disable-next=ansible-bad-function
        made = subprocess.run(argv, input=_CONFIGURATION, capture_output=True, check=False)
    except FileNotFoundError as e:
        raise ChannelError("The program openssl is not on this host; install the package openssl.") from e
    if made.returncode != 0:
        words = made.stderr.decode(errors="replace").strip().splitlines()
        raise ChannelError(f"openssl could not make a key in {folder}: {words[-1] if words else made.returncode}.")
    with open(certificate, encoding="ascii") as f:
        return f.read()
