"""The processes beside `live.under_load`: `python -m playbook.evidence.live_jobs writer|observer`, ordered by stdin."""

from __future__ import annotations

import json
import queue
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg


def main() -> None:
    """Does the job named on the command line until stdin says stop or ends."""
    orders = json.loads(sys.stdin.readline())
    messages: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_listen, args=(messages,), daemon=True).start()
    job: Callable[[psycopg.Connection[Any], dict[str, Any]], Callable[[], Any]]
    job = {"writer": _writer, "observer": _observer}[sys.argv[1]]
    with psycopg.connect(**orders.pop("conninfo"), autocommit=True, application_name="playbook load") as connection:
        _work(job(connection, orders), messages)


def _listen(messages: queue.Queue[Any]) -> None:
    for line in sys.stdin:
        messages.put(json.loads(line))
    messages.put({"stop": True, "silently": True})


def _work(round_: Callable[[], Any], messages: queue.Queue[Any]) -> None:
    seen: list[Any] = []
    count, answer_at = 0, -1
    print(json.dumps({"ready": True}), flush=True)  # no writer begins before each has chosen its own rows
    messages.put(messages.get())
    while True:
        if found := round_():
            seen.extend(found)
        count += 1
        if count == answer_at:
            print(json.dumps({"done": count}), flush=True)
        if messages.empty():
            continue
        message = messages.get()
        if "wait_for" in message:
            answer_at = count + message["wait_for"]
        elif message.get("silently"):
            return
        else:
            print(json.dumps(seen), flush=True)
            return


def _writer(connection: psycopg.Connection[Any], orders: dict[str, Any]) -> Callable[[], Any]:
    draw = random.Random(orders["number"])  # noqa: S311
    statements = _statements(orders)
    rows = connection.execute(
        f"SELECT {orders['id']} FROM (SELECT {orders['id']}, row_number() OVER (ORDER BY {orders['id']}) n "
        f"FROM {orders['table']}) r WHERE n %% %s = %s LIMIT 2000".encode(),
        [orders["writers"], orders["number"]],
    ).fetchall()
    own = [row[0] for row in rows]
    seed = own.pop()

    def write() -> list[Any]:
        what = draw.choices(("insert", "upsert", "move", "empty", "delete"), (50, 10, 20, 10, 10))[0]
        if len(own) < 20:
            what = "insert"
        chosen = seed if what in {"insert", "upsert"} else draw.choice(own)
        change = f"{orders['key']} = {orders['key']} - interval '{draw.randint(1, 60)} days'"
        if what == "empty" and orders["nullable"]:
            change = f"{draw.choice(orders['nullable'])} = NULL"
        sql = statements[what].replace("{change}", change)
        began, timer, error = time.time(), time.perf_counter(), ""
        try:
            cursor = connection.execute(sql.encode(), [chosen] * sql.count("%s"))
            if what == "insert" and (row := cursor.fetchone()):
                own.append(row[0])
            if what == "delete":
                own.remove(chosen)
        except psycopg.Error as failure:
            error = f"{type(failure).__name__}: {failure.diag.message_primary}"
        return [(began, 1000 * (time.perf_counter() - timer), what, error)]

    return write


def _statements(orders: dict[str, Any]) -> dict[str, str]:
    """Each writes the table and its twin alike; the key of the row to start from stands for every %s."""
    table, twin, key = orders["table"], orders["twin"], orders["id"]
    # A new row is copied from one that stands: its own identity, a moment of its own, and all else as it was.
    fresh = {key: orders["new_id"], orders["key"]: "now()"}
    columns = ", ".join(orders["columns"])
    given = [column for column in orders["columns"] if column not in orders["drawn"]]
    copied = ", ".join(fresh.get(column, column) for column in given)
    source = f"FROM {table} WHERE {key} = %s LIMIT 1"
    add = f"INSERT INTO {twin} SELECT * FROM new RETURNING {key}"
    update = (
        f"WITH new AS (UPDATE {table} SET {{change}} WHERE {key} = %s RETURNING *), "
        f"gone AS (DELETE FROM {twin} WHERE {key} = %s) {add}"
    )
    return {
        "insert": f"WITH new AS (INSERT INTO {table} ({', '.join(given)}) SELECT {copied} {source} RETURNING *) {add}",
        "upsert": f"WITH new AS (INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} {source} "
        f"ON CONFLICT DO NOTHING RETURNING *) {add}",
        "move": update,
        "empty": update,
        "delete": f"WITH gone AS (DELETE FROM {table} WHERE {key} = %s RETURNING {key}) "
        f"DELETE FROM {twin} AS twin USING gone WHERE twin.{key} = gone.{key}",
    }


_LOCKS = """
SELECT l.mode, l.granted, coalesce(a.query, '')
FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.relation = to_regclass(%s) AND a.application_name LIKE 'playbook %%'
  AND a.application_name <> 'playbook load' AND l.mode <> 'AccessShareLock'
"""


def _observer(connection: psycopg.Connection[Any], orders: dict[str, Any]) -> Callable[[], Any]:
    def look() -> list[Any]:
        at = time.time()
        rows = connection.execute(_LOCKS, [orders["table"]]).fetchall()
        time.sleep(orders["poll_s"])
        return [
            (at, mode.removesuffix("Lock"), granted, " ".join(query.split())[:120]) for mode, granted, query in rows
        ]

    return look


if __name__ == "__main__":
    main()
