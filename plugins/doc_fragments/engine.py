# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of all modules that talk to an engine."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation shared by the modules."""

    DOCUMENTATION = r"""
options:
  engine:
    description:
      - The container engine.
      - When it is not given, a container that is to be saved is looked for on every engine of the host; its name must
        be unique there. A restore takes the engine that the checkpoint is from.
    type: str
    choices: [docker]
  criu_executable:
    description: Name or path of CRIU on the host.
    type: str
    default: criu
  timeout:
    description: Seconds that CRIU may take to freeze a container, and that the Docker daemon may take to answer.
    type: int
    default: 60
  docker_host:
    description:
      - Socket of the Docker daemon.
      - It must be the daemon of the managed host itself, since CRIU works on that host's processes.
    type: str
    default: unix:///var/run/docker.sock
  tls:
    description: Use TLS without checking the daemon's certificate. For a C(tcp://) O(docker_host).
    type: bool
    default: false
  validate_certs:
    description: Use TLS and check the daemon's certificate.
    type: bool
    default: false
  ca_path:
    description: Certificate of the authority that signed the daemon's certificate.
    type: path
  client_cert:
    description: Certificate to show to the daemon.
    type: path
  client_key:
    description: Key of O(client_cert).
    type: path
  api_version:
    description: Version of the Docker API to speak; V(auto) asks the daemon.
    type: str
    default: auto
requirements:
  - CRIU 3.17 or newer, and new enough for the kernel (the role P(stillpoint.criu.criu#role) sees to it)
  - Python module pycriu (package python3-pycriu or python3-criu)
  - Docker SDK for Python (package python3-docker)
"""
