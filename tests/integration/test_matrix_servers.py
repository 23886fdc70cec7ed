# Copyright: (c) 2026, Stillpoint contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix: real servers whose clients keep their TCP connections."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness import features
from harness.cycle import Scenario, full_cycle
from harness.dockerhost import APPS, TICKER, Container, until
from harness.sandbox import Client, Sandbox, program


class Server(Scenario):
    """A server on a network of its own, with a fixed address. It must run as its image's first process does."""

    features = (features.TCP,)
    image = APPS
    macvlan = False
    client_options: tuple[str, ...] = ()  # of `docker run`
    serve = ""  # the shell command, ending in `exec ...`

    def options(self) -> list[str]:
        subnet = self.docker.subnet()
        driver = ["--driver=macvlan", "--opt=parent=eth0"] if self.macvlan else []
        self.network = self.docker.network("net", *driver, f"--subnet={subnet}.0/24")
        self.address = f"{subnet}.10"
        return ["--network", self.network, "--ip", self.address]

    def command(self) -> list[str]:
        return ["sh", "-c", f"({TICKER}) & {self.serve}"]

    def client(self, *command: str) -> Client:
        """Start a client: in the host's network, or where the host cannot reach its macvlan, in a container."""
        network = self.network if self.macvlan else "host"
        options = ["--interactive", "--name", self.docker.name("client"), "--network", network]
        options += self.client_options
        return self.sandbox.client(*self.docker.attendant(self.image, *options), *command)


class Redis(Server):
    """300,000 keys, and a client that increments a number without pause over one connection."""

    KEYS = 300_000
    VALUE = "'value:' .. i"
    serve = (
        "exec redis-server --bind 0.0.0.0 --protected-mode no --save '' --appendonly no --dir /tmp "
        "--busy-reply-threshold 0"
    )
    incrementer: Client | None = None

    def ready(self, container: Container) -> None:
        until("redis answers", lambda: "PONG" in container.exec("redis-cli", "ping", check=False))

    def query(self, container: Container, *command: str) -> str:
        return container.exec("redis-cli", *command).strip()

    def before_checkpoint(self, container: Container) -> None:
        if self.incrementer is None:
            fill = f"for i = 1, tonumber(ARGV[1]) do redis.call('SET', 'key:' .. i, {self.VALUE}) end"
            self.query(container, "EVAL", fill, "0", str(self.KEYS))
            self.incrementer = self.client(*program("redis_client", self.address, "6379"))
        self.clients = self.query(container, "CLIENT", "LIST", "TYPE", "normal")
        self.status = self.increments()

    def increments(self) -> dict[str, Any]:
        assert self.incrementer is not None
        return json.loads(self.incrementer.ask("status"))

    def after_restore(self, container: Container) -> None:
        status = self.increments()
        assert status["port"] == self.status["port"] and status["count"] > self.status["count"]
        assert self.query(container, "DBSIZE") == str(self.KEYS + 1)
        check = (
            "local wrong = 0; for i = 1, tonumber(ARGV[1]) do "
            f"if redis.call('GET', 'key:' .. i) ~= {self.VALUE} then wrong = wrong + 1 end end; return wrong"
        )
        assert self.query(container, "EVAL", check, "0", str(self.KEYS)) == "0"
        assert int(self.query(container, "GET", "hits")) >= status["count"]

    def before_stop(self, container: Container) -> None:
        first = self.increments()
        until("the client's calls go on", lambda: self.increments()["count"] > first["count"] + 10)
        assert self.incrementer is not None
        self.incrementer.close()


class RedisOnMacvlan(Redis):
    """The same on a macvlan network."""

    macvlan = True


class Nginx(Server):
    """A keep-alive connection, and a request of which one half is sent before the checkpoint."""

    CONFIG = """
        daemon off; worker_processes 2; error_log stderr; pid /tmp/nginx.pid; user USER; events { }
        http {
            access_log off; keepalive_timeout 1h; keepalive_requests 1000000; client_header_timeout 1h;
            add_header X-Connection $connection; server { listen 80; root /srv; }
        }"""
    browser: Client | None = None

    def command(self) -> list[str]:
        config = self.CONFIG.replace("USER", "www-data" if self.sandbox.reads_limits else "root")
        start = f"echo hello > /srv/page; printf %s '{config}' > /tmp/nginx.conf; exec nginx -c /tmp/nginx.conf"
        return ["sh", "-c", f"({TICKER}) & {start}"]

    def ready(self, container: Container) -> None:
        connect = ["python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 80)); print('connected')"]
        until("nginx listens", lambda: "connected" in container.exec(*connect, check=False))

    def before_checkpoint(self, container: Container) -> None:
        if self.browser is None:
            self.browser = self.client(*program("http_client", self.address, "80"))
        self.seen = self.ask("get /page")
        assert self.browser.ask("begin /page") == "half"

    def ask(self, line: str) -> dict[str, Any]:
        assert self.browser is not None
        answer = json.loads(self.browser.ask(line))
        assert answer["status"] == 200 and answer["kept"] == "keep-alive", answer
        return answer

    def after_restore(self, container: Container) -> None:
        assert self.ask("end") == self.seen
        assert self.ask("get /page") == self.seen

    def before_stop(self, container: Container) -> None:
        assert self.ask("get /page") == self.seen
        assert self.browser is not None
        self.browser.close()


POSTGRESQL = (
    "bin=$(echo /usr/lib/postgresql/*/bin); data=/var/lib/postgresql/data; "
    "[ -d $data ] || { $bin/initdb --auth=trust --no-sync --pgdata=$data >/dev/null; "
    "echo 'host all all all trust' >> $data/pg_hba.conf; }; "
    "exec $bin/postgres -D $data -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off"
)


class PostgreSQL(Server):
    """A transaction that is begun before the checkpoint and commits after the restore, over the same connection."""

    serve = POSTGRESQL
    session: Client | None = None
    rounds = 0

    def options(self) -> list[str]:
        return [*super().options(), "--user", "postgres", "--stop-signal", "SIGINT", "--shm-size", "128m"]

    def ready(self, container: Container) -> None:
        container.wait_for_log("database system is ready to accept connections")
        until("PostgreSQL answers", lambda: "accepting" in container.exec("pg_isready", "-h", "/tmp", check=False))

    def query(self, container: Container, sql: str) -> str:
        """Ask over another connection."""
        return container.exec("psql", "-h", "/tmp", "-XAtqc", sql, "postgres").strip()

    def sql(self, container: Container, statement: str) -> str:
        """Run a statement in the session and return its one line."""
        if self.session is None:
            connection = ["--host", self.address, "--username", "postgres", "--dbname", "postgres"]
            self.session = self.client("psql", *connection, "-XAtq", "-v", "ON_ERROR_STOP=1")
        return self.session.ask(statement)

    def before_checkpoint(self, container: Container) -> None:
        made = "CREATE TABLE IF NOT EXISTS rounds (number int); SET client_min_messages = error; SELECT 'made';"
        if not self.rounds:
            assert self.sql(container, made) == "made"
        self.rounds += 1
        insert = f"BEGIN; INSERT INTO rounds VALUES ({self.rounds});"
        self.identity = self.sql(container, f"{insert} SELECT pg_backend_pid() || ' ' || pg_current_xact_id();")

    def after_restore(self, container: Container) -> None:
        assert self.sql(container, "SELECT pg_backend_pid() || ' ' || pg_current_xact_id();") == self.identity
        assert self.query(container, "SELECT count(*) FROM rounds") == str(self.rounds - 1), "seen before the commit"
        assert self.sql(container, "COMMIT; SELECT count(*) FROM rounds;") == str(self.rounds)
        assert self.query(container, "SELECT count(*) FROM rounds") == str(self.rounds)

    def before_stop(self, container: Container) -> None:
        assert self.sql(container, "SELECT sum(number) FROM rounds;") == "3"
        if self.session is not None:
            self.session.close()


class LocalPostgreSQL(PostgreSQL):
    """The same without a network: the client is a process of the container, its connection goes over loopback."""

    serve = (
        "[ -p /tmp/sql ] || mkfifo /tmp/sql; : > /tmp/answers; "
        "{ until pg_isready -q -h /tmp; do sleep 0.2; done; "
        "exec psql -h 127.0.0.1 -XAtq -v ON_ERROR_STOP=1 postgres <>/tmp/sql >>/tmp/answers 2>&1; } & "
    ) + POSTGRESQL

    def options(self) -> list[str]:
        return ["--network", "none", "--user", "postgres", "--stop-signal", "SIGINT", "--shm-size", "128m"]

    def checkpoint_options(self) -> dict[str, Any]:
        return {"criu_executable": self.sandbox.criu_for("postgres", self.image)}

    restore_options = checkpoint_options

    def sql(self, container: Container, statement: str) -> str:
        known = len(container.exec("cat", "/tmp/answers").splitlines())
        container.exec("sh", "-c", 'echo "$1" >/tmp/sql', "sh", statement)

        def answers() -> list[str]:
            return container.exec("cat", "/tmp/answers").splitlines()[known:]

        return until(f"psql answers {statement!r}", answers)[0]


@pytest.mark.proves("docker")
@pytest.mark.parametrize("scenario", [Redis, RedisOnMacvlan, Nginx, PostgreSQL, LocalPostgreSQL])
def test_server(sandbox: Sandbox, scenario: type[Server]) -> None:
    """The server's clients notice nothing but a pause, its data is complete."""
    if scenario is PostgreSQL and not sandbox.reads_limits:
        pytest.skip(
            "root lacks CAP_SYS_RESOURCE on this machine, so CRIU cannot save processes of other users (PostgreSQL "
            "refuses to run as root); LocalPostgreSQL is the part of this row that works without it"
        )
    container = full_cycle(scenario(sandbox))
    if issubclass(scenario, PostgreSQL):  # stopped gracefully, so the data directory needed no recovery
        assert "was not properly shut down" not in container.logs()
        assert container.exec("psql", "-h", "/tmp", "-XAtqc", "SELECT count(*) FROM rounds", "postgres").strip() == "2"
