"""A PostgreSQL server of its own, in a temporary folder, for tests that stop and freeze it."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def find_binaries() -> Path | None:
    """The folder of initdb and pg_ctl, on PATH or where Debian keeps them."""
    named = shutil.which("pg_ctl")
    folders = [Path(named).resolve().parent] if named else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    programs = ("initdb", "createdb", "pg_ctl")
    return next((one for one in folders if all((one / name).is_file() for name in programs)), None)


def why_missing() -> str | None:
    """Why no server can be started here; None if one can."""
    if find_binaries() is None:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    if os.geteuid() == 0 and _account() is None:
        return "PostgreSQL refuses to run as root, and there is no user postgres"
    return None


def _account() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return None


@dataclass
class Postgres:
    """A server on a port of the loopback interface, without a password."""

    binaries: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return self.database("postgres")

    def database(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def create(self, name: str) -> str:
        """Create a database, and return its URL."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", name)
        return self.database(name)

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder}"
        options += " -c fsync=off -c max_connections=200"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", self._data, "-w", "-o", options, "-l", log, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def freeze(self) -> None:
        """Stop all processes of the server, as a machine that hangs."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def initialise(self) -> None:
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-N")

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _signal(self, number: signal.Signals) -> None:
        head = int((self.folder / "data" / "postmaster.pid").read_text("utf-8").split()[0])
        children = Path(f"/proc/{head}/task/{head}/children").read_text("ascii").split()
        for process in (head, *map(int, children)):
            os.kill(process, number)

    def _run(self, program: str, *arguments: str) -> None:
        user = "postgres" if os.geteuid() == 0 else None
        subprocess.run(
            [self.binaries / program, *arguments],
            user=user,
            cwd=self.folder,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            timeout=60,
        )


@contextmanager
def running_server() -> Iterator[Postgres]:
    """Start a server of its own, and remove it afterwards."""
    binaries = find_binaries()
    assert binaries is not None
    folder = Path(tempfile.mkdtemp(prefix="dse-postgres-"))
    try:
        if os.geteuid() == 0:
            account = _account()
            assert account is not None
            os.chown(folder, account.pw_uid, account.pw_gid)
        server = Postgres(binaries, folder, free_port())
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.thaw()
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port
