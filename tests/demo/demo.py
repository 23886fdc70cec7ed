# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo: running containers are checkpointed, destroyed and restored, and one is moved to another host; all go on.

Prints each command as an operator would type it, then its output; of Ansible's output only the tasks that have
something to tell. Exit code 0 when everything went on where it stopped, 1 when not.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import FrameType

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
sys.path.insert(0, str(ROOT / "tests/lab"))

from stillpoint_lab.api import Lab, LabError  # noqa: E402

HOST = "alpha"
OTHER = "beta"
CLIENT = "/srv/stillpoint-demo-client.py"
CHECKPOINTS = "/var/lib/stillpoint/checkpoints"
SAVED = ("demo-redis", "demo-counter")
KEYS = 50_000
FILL = f"for i = 1, {KEYS} do redis.call('SET', 'key:' .. i, i) end return redis.call('DBSIZE')"
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.5; done"
NETWORK = "docker network create --driver macvlan --opt parent=eth0 --subnet 172.30.98.0/24 demo-lan"
REMOVE = f"""
docker rm --force demo-client demo-visitor demo-moving {" ".join(f"{name} {name}-restored" for name in SAVED)}
docker network rm demo demo-lan
rm -rf {CLIENT} {" ".join(f"{CHECKPOINTS}/{name}" for name in SAVED)}
"""
# The client sends again after 0.2 s, 0.4 s, 0.8 s ...: it may notice late that its server is back.
WAIT_S = 90.0


class Broken(Exception):
    """Something did not go as the demo promises."""


class Demo:
    """The host that the demo happens on, and the numbers that it compares."""

    def __init__(self, lab: Lab) -> None:
        self.host = lab.host(HOST)
        self.other = lab.host(OTHER)
        self.inventory = lab.inventory

    def remove(self) -> None:
        """Remove whatever the demo has made or an earlier one has left."""
        for host in (self.host, self.other):
            host.run(["sh", "-c", REMOVE], timeout=120, check=False)

    # -- showing ---------------------------------------------------------------------------------------------------

    def shell(self, command: str, timeout_s: float = 60.0, *, other: bool = False) -> str:
        """Show a command of a host's shell and what it prints; return the latter. Broken when it fails."""
        print(f"\n{OTHER if other else HOST}# {command}")
        done = (self.other if other else self.host).run(["sh", "-c", command], timeout=timeout_s, check=False)
        output = (done.stdout + done.stderr).strip()
        print(output or "(no output)")
        if done.returncode != 0:
            raise Broken(f"the command ended with exit code {done.returncode}")
        return output

    def playbook(self, name: str, *variables: str) -> None:
        """Show a playbook of the collection run and what it tells. Broken when it fails."""
        extra = [word for variable in variables for word in ("-e", variable)]
        command = ["ansible-playbook", "-i", "inventory.yml", f"stillpoint.criu.{name}", *extra]
        print(f"\n$ {' '.join(command)}")
        command[2] = str(self.inventory)
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
            "LC_ALL": "C.UTF-8",
        }
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode != 0:
            print(done.stdout + done.stderr)
            raise Broken(f"ansible-playbook ended with exit code {done.returncode}")
        print(told(done.stdout))

    def log(self, container: str) -> str:
        """Return the last line of a container's log."""
        return self.host.run(["docker", "logs", "--tail=1", container], timeout=60).stdout.strip()

    # -- the steps -------------------------------------------------------------------------------------------------

    def run(self) -> str:
        """Run the demo and return its last line. Broken when something did not go on where it stopped."""
        say("1. Make the hosts ready: CRIU and the restore runtime. Nothing is restarted.")
        self.playbook("preflight", f"target={HOST},{OTHER}", "install=true")

        say("2. Start a counter, and a redis with a client that counts visits over one TCP connection.")
        self.host.run(["sh", "-c", f"cat > {CLIENT}"], input=(FOLDER / "client.py").read_text(), timeout=60)
        self.shell(f"docker run --detach --name demo-counter stillpoint/busybox:lab sh -c '{COUNT}'")
        self.shell("docker network create --subnet 172.30.99.0/24 demo")
        self.shell(
            "docker run --detach --name demo-redis --network demo stillpoint/apps:lab "
            "redis-server --save '' --protected-mode no"
        )
        self.until("redis answers", "docker exec demo-redis redis-cli ping", "PONG")
        self.shell(f'docker exec demo-redis redis-cli EVAL "{FILL}" 0')
        self.shell(
            f"docker run --detach --name demo-client --network demo --volume {CLIENT}:/client.py:ro "
            "stillpoint/apps:lab python3 /client.py demo-redis"
        )
        self.until("the client counts", "docker logs --tail=1 demo-client", "visit [0-9]{2}")
        self.shell("docker logs --tail=2 demo-client")
        connection = self.connection("demo-redis")

        say("3. Save both to disk. They stop at the very instant that is saved.")
        self.playbook("checkpoint", f"target={HOST}", f"container={','.join(SAVED)}", "leave_running=false")
        counted = int(self.shell("docker logs --tail=1 demo-counter"))
        visit = visits(self.shell("docker logs --tail=1 demo-client"))

        say("4. Destroy both. The client does not know, and waits for an answer.")
        self.shell(f"docker rm --force {' '.join(SAVED)}")
        self.shell("docker ps --all --format 'table {{.Names}}\\t{{.Status}}'")
        for name in SAVED:
            if self.host.run(["docker", "inspect", name], timeout=60, check=False).returncode == 0:
                raise Broken(f"{name} is still there")

        say("5. Restore both.")
        self.playbook("restore", f"target={HOST}", f"container={','.join(SAVED)}")

        say("6. Look whether they went on.")
        self.shell("docker ps --all --format 'table {{.Names}}\\t{{.Status}}'")
        first = int(self.shell("docker logs demo-counter-restored 2>&1 | head -n 1"))
        self.until("the client goes on", "docker logs --tail=1 demo-client", f"visit (?!{visit} )")
        time.sleep(1)
        later = visits(self.shell("docker logs --tail=1 demo-client"))
        restored = self.connection("demo-redis-restored")
        keys = int(self.shell("docker exec demo-redis-restored redis-cli DBSIZE"))
        if restored != connection:
            raise Broken(f"redis had the connection {connection} and now has {restored}")
        if keys != KEYS + 1:
            raise Broken(f"redis has {keys} keys instead of {KEYS + 1}")
        if first != counted + 1:
            raise Broken(f"the counter said {counted} before it was destroyed and {first} after it was restored")
        print(
            f"\nredis kept its {keys} keys and its client's TCP connection, the same one as before ({connection}): "
            f"visit {visit} before, {later} now."
        )
        self.migrate()
        return f"The counter said {counted} before it was destroyed and {first} after it was restored."

    def migrate(self) -> None:
        """Move a redis to the other host while a client uses it. Broken when the client's connection was not kept."""
        say("7. Start another redis, on a network that both hosts are on, and a client that never waits.")
        for other in (False, True):
            self.shell(NETWORK, other=other)
        self.shell(
            "docker run --detach --name demo-moving --network demo-lan --ip 172.30.98.10 stillpoint/apps:lab "
            "redis-server --save '' --protected-mode no"
        )
        self.until("redis answers", "docker exec demo-moving redis-cli ping", "PONG")
        self.shell(f'docker exec demo-moving redis-cli EVAL "{FILL}" 0')
        self.shell(
            f"docker run --detach --name demo-visitor --network demo-lan --volume {CLIENT}:/client.py:ro "
            "stillpoint/apps:lab python3 /client.py 172.30.98.10"
        )
        self.until("the client counts", "docker logs --tail=1 demo-visitor", "visit [0-9]{2}")
        connection = self.connection("demo-moving")

        say("8. Move it to the other host.")
        self.playbook("migrate", "container=demo-moving", f"source={HOST}", f"target={OTHER}")
        visit = visits(self.shell("docker logs --tail=1 demo-visitor"))
        self.until("the client goes on", "docker logs --tail=1 demo-visitor", f"visit (?!{visit} )")
        self.shell("docker logs --tail=1 demo-visitor")
        self.shell("docker ps --filter name=demo-moving --format 'table {{.Names}}\\t{{.Status}}'", other=True)
        moved = self.connection("demo-moving", other=True)
        if moved != connection:
            raise Broken(f"redis had the connection {connection} on {HOST} and has {moved} on {OTHER}")
        print(f"\nredis moved from {HOST} to {OTHER} with its client's TCP connection ({connection}).")

    def connection(self, container: str, *, other: bool = False) -> str:
        """Show what redis itself says of its client's connection; return its number and both ends."""
        asked = f"docker exec {container} redis-cli CLIENT LIST | grep cmd=incr | cut -d ' ' -f 1-3"
        return self.shell(asked, other=other)

    def until(self, what: str, command: str, pattern: str) -> None:
        """Wait until a command's output has a pattern. Broken after WAIT_S."""
        deadline = time.monotonic() + WAIT_S
        while True:
            done = self.host.run(["sh", "-c", command], timeout=60, check=False)
            if re.search(pattern, done.stdout):
                return
            if time.monotonic() > deadline:
                raise Broken(f"waited {WAIT_S:.0f} s until {what}, in vain: {done.stdout}{done.stderr}")
            time.sleep(0.1)


def told(output: str) -> str:
    """Return of a playbook's output the tasks of the playbook itself that tell or change something, and the recap."""
    blocks = [block.strip("\n") for block in re.split(r"\n\s*\n", output)]
    kept = [
        block
        for block in blocks
        if block.startswith(("PLAY RECAP", "[WARNING]", "[DEPRECATION"))
        or (re.search(r"^\s+msg:|^changed:", block, re.M) and not block.startswith("TASK [stillpoint.criu."))
    ]
    left_out = sum(block.count("\n") + 1 for block in blocks) - sum(block.count("\n") + 1 for block in kept)
    return "\n\n".join([f"[{left_out} lines are left out here]", *kept])


def visits(line: str) -> int:
    """Return the number in a line of the client's log."""
    found = re.match(r"visit (\d+) ", line)
    if found is None:
        raise Broken(f"the client said: {line}")
    return int(found.group(1))


def say(text: str) -> None:
    """Show a heading."""
    print(f"\n{'-' * 100}\n{textwrap.fill(text, 100)}")


def interrupt(number: int, _frame: FrameType | None) -> None:
    """Turn a signal into an exception, so that clean-up runs."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    """Run the demo and return the exit code."""
    signal.signal(signal.SIGTERM, interrupt)
    lab = Lab()
    demo = Demo(lab)
    if not demo.host.is_up():
        print(f"ERROR: the host {HOST} of the lab is not up. Run: make lab, or make demo, which does that too.")
        return 1
    begun = time.monotonic()
    try:
        demo.remove()
        last_line = demo.run()
    except (Broken, LabError, subprocess.TimeoutExpired, ValueError) as error:
        print(f"\nERROR: the demo failed: {error}")
        return 1
    finally:
        demo.remove()
    print(f"\nDone in {time.monotonic() - begun:.0f} s; what the demo made was removed.\n{last_line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
