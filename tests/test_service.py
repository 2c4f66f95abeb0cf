"""The reference service: as found and optimized answer the same, and it leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psycopg
import pytest
from tests.waiting import until

from playbook.errors import EmbeddedError, UsageError
from playbook.service import copies, process
from playbook.service.reads import ENDPOINTS
from playbook.service.switches import Switches
from playbook.target.opening import open_target

COMMAND = str(Path(sys.executable).with_name("playbook"))
# Path, and how many statements it takes at most once it is optimized.
PATHS = {
    "/proposals": 3,
    "/proposals?limit=200": 3,
    "/proposals?status=DRAFT&priority=URGENT&limit=50": 3,
    "/proposals?customer_id=c0000001&min_value=1000.50&offset=10": 3,
    "/proposals?status=NO_SUCH": 3,
    "/proposals/p0000010": 5,
    "/proposals/p0000fa0": 5,
    "/dashboard": 3,
    "/dashboard?days=400": 3,
    "/content": 2,
    "/content?text=IMAGE&type=IMAGE&limit=50": 2,
    "/content?category=legal&is_active=false&text=100%25": 2,
    "/approvals": 1,
    "/approvals?status=APPROVED&workflow_id=w0000001&limit=100": 1,
    "/validation-issues": 2,
    "/validation-issues?entity_type=CONTENT&severity=LOW&status=RESOLVED&limit=80": 2,
    "/validation-issues?entity_type=PRODUCT": 2,
    "/validation-issues?entity_type=CUSTOMER&status=RESOLVED": 2,
    "/validation-issues?entity_type=NOTHING": 1,
    "/hypotheses/H1/results": 2,
    "/hypotheses/H7/results?users=30": 2,
    "/hypotheses/none/results": 2,
}


@pytest.mark.parametrize("path", PATHS)
def test_as_found_and_optimized_answer_the_same_bytes(as_found, optimized, path):
    before, after = as_found.get(path), optimized.get(path)
    assert before.status_code == after.status_code == 200
    assert before.content == after.content
    assert int(after.headers["x-statements"]) <= PATHS[path]
    assert int(after.headers["x-statements"]) <= int(before.headers["x-statements"])


def test_the_paths_reach_every_endpoint(as_found):
    reached = {path.partition("?")[0].split("/")[1] for path in PATHS}
    assert reached == {endpoint.path.split("/")[1] for endpoint in ENDPOINTS}


def test_as_found_a_list_takes_statements_by_the_row_and_optimized_it_does_not(as_found, optimized):
    assert as_found.statements("/proposals?limit=100") > 1.5 * as_found.statements("/proposals?limit=50") > 150
    assert optimized.statements("/proposals?limit=100") == optimized.statements("/proposals?limit=50")


def test_an_answer_says_what_it_cost(as_found):
    headers = as_found.get("/approvals?limit=30").headers
    assert int(headers["x-statements"]) > 30
    assert int(headers["x-rows"]) > 60
    assert float(headers["x-database-ms"]) > 0


def test_an_answer_waits_for_no_delayed_acknowledgement(optimized):
    def clock():
        began = time.perf_counter()
        assert optimized.get("/proposals/p0000010").status_code == 200
        return time.perf_counter() - began

    # Linux acknowledges the first packets of a connection at once, and later ones after 40 ms.
    assert min([clock() for _ in range(40)][20:]) < 0.035


def test_writes_change_what_is_read_in_both_alike(as_found, optimized):
    key = json.loads(as_found.get("/proposals?limit=1").content)["proposals"][0]["id"]
    approval = json.loads(as_found.get("/approvals?limit=1").content)["approvals"][0]["id"]
    issue = json.loads(as_found.get("/validation-issues?limit=1").content)["issues"][0]["id"]
    for served in (as_found, optimized):
        client = served.client
        assert client.patch(f"/proposals/{key}", json={"status": "ON_HOLD", "priority": "LOW"}).status_code == 200
        assert client.post(f"/approvals/{approval}/decision", json={"status": "REJECTED"}).status_code == 200
        assert client.post(f"/validation-issues/{issue}/resolution", json={"status": "DISMISSED"}).status_code == 200
    shown = json.loads(optimized.get(f"/proposals/{key}").content)
    assert (shown["status"], shown["priority"]) == ("ON_HOLD", "LOW")
    assert approval not in optimized.get("/approvals?limit=1").text
    assert issue not in optimized.get("/validation-issues?limit=1").text
    for path in (f"/proposals/{key}", "/proposals", "/approvals", "/validation-issues", "/dashboard"):
        assert as_found.get(path).content == optimized.get(path).content


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/proposals/none", 404),
        ("/proposals?limit=0", 422),
        ("/proposals?limit=501", 422),
        ("/proposals?statsu=DRAFT", 422),
        ("/proposals?min_value=much", 422),
        ("/proposals?status=%27%3B%20DROP%20TABLE%20users%3B--", 200),
        ("/nothing", 404),
    ],
)
def test_bad_input_is_refused(optimized, path, status):
    assert optimized.get(path).status_code == status


def test_an_unknown_key_is_no_write(optimized):
    assert optimized.client.patch("/proposals/none", json={"priority": "LOW"}).status_code == 404
    assert optimized.client.patch("/proposals/p0000010", json={"value": "1"}).status_code == 422


def test_a_database_that_is_down_is_told_at_once_with_503_and_comes_back(server):
    gone = {**server.conninfo("no_such_database")}
    with process.start(gone, Switches()) as running, httpx.Client(base_url=running.url) as client:
        answer = client.get("/proposals", timeout=5)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert server.password not in answer.text
        with psycopg.connect(**server.conninfo("postgres"), autocommit=True) as admin:
            admin.execute("CREATE DATABASE no_such_database TEMPLATE proposals_0_02_pristine")
            try:
                assert client.get("/proposals", timeout=30).status_code == 200
            finally:
                admin.execute("DROP DATABASE no_such_database WITH (FORCE)")


def test_a_service_that_cannot_start_says_why(server, monkeypatch):
    monkeypatch.setattr(process.sys, "executable", "/bin/false")
    with pytest.raises(EmbeddedError, match="did not start: it said nothing"):
        process.start(server.conninfo("postgres"), Switches())


def test_its_password_stands_in_no_process_list_and_no_environment(as_found, server):
    for name in ("cmdline", "environ"):
        assert server.password.encode() not in Path(f"/proc/{as_found.service.pid}/{name}").read_bytes()


def answers(url):
    try:
        return httpx.get(f"{url}/nothing", timeout=30).status_code == 404
    except httpx.TransportError:
        return False


STARTER = """
import sys, time
from playbook.service import process
from playbook.service.switches import Switches
running = process.start({"host": "127.0.0.1", "port": 1, "dbname": "none"}, Switches())
print(running.url, flush=True)
time.sleep(60)
"""


def test_it_ends_with_a_starter_that_was_killed():
    starter = subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True)
    url = starter.stdout.readline().strip()
    assert answers(url)
    starter.kill()
    starter.communicate()
    until(lambda: not answers(url), limit_s=30)


def test_the_copy_as_found_is_dropped_and_one_left_behind_too(server):
    target = open_target("embedded", 0.02, lambda text: None)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = f"proposals_0_02_as_found_{ended.pid}_1"
    with psycopg.connect(**server.conninfo("postgres"), autocommit=True) as admin:
        databases = "SELECT datname FROM pg_database WHERE datname LIKE 'proposals_0_02_as_found%'"
        admin.execute(f"CREATE DATABASE {left} TEMPLATE proposals_0_02_pristine")
        admin.execute(f"COMMENT ON DATABASE {left} IS 'playbook sample of a killed process'")
        with copies.as_found(target) as conninfo:
            assert admin.execute(databases).fetchall() == [(conninfo["dbname"],)]
            with psycopg.connect(**conninfo) as connection:
                connection.execute("DELETE FROM audit_logs")
        assert admin.execute(databases).fetchall() == []


def test_serve_answers_until_ctrl_c(server):
    process = subprocess.Popen([COMMAND, "serve", "--as-found"], stdout=subprocess.PIPE, text=True)
    first = process.stdout.readline()
    url = first.split()[0]
    until(lambda: answers(url), limit_s=30)
    assert httpx.get(f"{url}/dashboard", timeout=30).status_code == 200
    assert "(as found) on proposals_0_02_as_found_" in first
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_serve_names_a_port_that_is_taken(server):
    with process.listen() as taken:
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run([COMMAND, "serve", "--port", str(port)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"--port {port}: Address already in use" in done.stderr


def test_switches_are_named_like_kinds_of_steps():
    from playbook.changes import kinds

    assert set(Switches.names()) <= set(kinds())
    assert Switches.of(["eager_load"]) == Switches({"eager_load": {}})
    assert str(Switches()) == "as found"
    with pytest.raises(UsageError, match="no switch lazy; it has cache, eager_load, "):
        Switches.of(["lazy"])
