# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of all modules that use a repository."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation shared by the modules."""

    DOCUMENTATION = r"""
options:
  repository:
    description:
      - Address of a repository of C(restic), as the managed host reaches it, for instance V(/mnt/backup/restic),
        V(sftp:backup@store:/srv/restic), V(s3:https://s3.example.org/bucket/containers) or
        V(rest:https://store:8000/containers).
      - It must hold no password; see O(repository_environment).
    type: str
  repository_password_file:
    description: Path on the managed host of a file that holds the repository's password.
    type: path
  repository_password_command:
    description: Command on the managed host that prints the repository's password. It runs without a shell.
    type: str
  repository_environment:
    description:
      - Environment of C(restic), for what must not be seen; for instance C(RESTIC_PASSWORD), C(AWS_ACCESS_KEY_ID),
        C(AWS_SECRET_ACCESS_KEY), C(RESTIC_REST_USERNAME), C(RESTIC_REST_PASSWORD).
      - Nothing of it appears in results, nor in the list of processes. Texts that are equal to one of its values are
        masked in results, so keep names of regions and the like out of it where you can.
    type: dict
  repository_options:
    description: Options of the backend for C(restic), each V(key=value), such as V(sftp.args=-i /root/.ssh/backup).
    type: list
    elements: str
    default: []
  repository_timeout:
    description:
      - Seconds after which a repository that does not answer is given up. For so long, too, locks of other runs are
        waited for. Locks of runs that are no more do not count.
    type: int
    default: 60
  restic_executable:
    description: Name or path of C(restic) on the managed host.
    type: str
    default: restic
"""
