#!/usr/bin/env python3
"""A plant of three brokers that simulates its readings and leaves the alerts to Debezium, from end to end: simulated.py DOCUMENT, which is
what `rig plant up --brokers 3 --relay debezium --simulate` printed.

Machines are put under a profile that breaks a law, one before and one after a broker of three is killed; Redis stands still in between. What `simulate` wrote must be in
sensor_log once, exactly; each alert of the history on anomaly-alerts, with the portal and on the WebSocket once, whatever Debezium doubled.
"""

import json
import os
import signal
import sys
import time
from collections import Counter
from decimal import Decimal
from datetime import datetime

import psycopg
from confluent_kafka.admin import AdminClient, ConfigResource
from foreign import SCHEMA, ask, check_stream, topic, until
from jsonschema import FormatChecker
from jsonschema.validators import validator_for

TOPICS = ("sensor-raw-data", "anomaly-alerts", "sensor-raw-data.dlq")
VALUES = ("air_temp_k", "process_temp_k", "rpm", "torque_nm", "tool_wear_min")


def check_copies(admin):
    """Each record lies on three brokers, and is taken once two have it."""
    found = admin.list_topics(timeout=5).topics
    for name in TOPICS:
        apart = [part for part in found[name].partitions.values() if len(part.replicas) != 3 or len(part.isrs) != 3]
        if apart:
            return f"{name}: partition {apart[0].id} lies on {apart[0].replicas}, in step are {apart[0].isrs}"
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        least = admin.describe_configs([resource])[resource].result(10)["min.insync.replicas"].value
        if least != "2":
            return f"{name}: min.insync.replicas is {least}"
    return None


def break_law(portal, machine):
    status, _, body, _ = ask(f"{portal}/simulate/{machine}?profile=power_failure&duration_sec=20", b"")
    if status != 200:
        sys.exit(f"simulated: {machine} is not put under a profile: {status} {body}")
    return time.monotonic()


def check_told(main_db, machine):
    """Whether the portal has an alert of a machine, raised by its law of power."""
    sql = "select count(*) from alert where data ->> 'machine_id' = %s and data ->> 'condition' = 'power_failure' and data ->> 'kind' = 'raised'"
    count = main_db.execute(sql, [machine]).fetchone()[0]
    return None if count == 1 else f"{count} alerts of {machine}"


def check_stale(portal, machine, stale):
    """Whether the status of a machine that sends each second says that it is old."""
    status, _, body, _ = ask(f"{portal}/api/machines/{machine}/status")
    return None if (status, body["stale"]) == (200, stale) else f"{status} {body}"


def check_without_redis(at, machine, stored):
    """Redis stands still: the portal shows the last values that it knew and says so, and nothing else stops."""
    until("a simulated machine's status is of now", lambda: check_stale(at["portal"], machine, False))
    try:
        for pid in at["pids"]["redis"]:
            os.kill(pid, signal.SIGSTOP)
        until("Redis stands still: the status says that it is stale", lambda: check_stale(at["portal"], machine, True))
        before = stored()
        until("and readings are stored all the same", lambda: None if stored() > before else f"{before} rows")
    finally:
        for pid in at["pids"]["redis"]:
            os.kill(pid, signal.SIGCONT)
    until("Redis goes on: the status is of now again", lambda: check_stale(at["portal"], machine, False))


def check_rows(main_db, kafka):
    """Each reading on the topic is a row, and there is no other."""
    wanted = Counter()
    for record in topic(kafka, "sensor-raw-data"):
        row = json.loads(record.value(), parse_float=Decimal)
        at = datetime.fromisoformat(row["timestamp"]).replace(tzinfo=None)
        wanted[(row["machine_id"], at, *(row[name] for name in VALUES))] += 1
    found = Counter(main_db.execute(f"select machine_id, timestamp, {', '.join(VALUES)} from sensor_log"))
    if not wanted or max(wanted.values()) > 1 or found != wanted:
        return f"{found.total()} rows for {wanted.total()}; missing {list(wanted - found)[:1]}, too many {list(found - wanted)[:1]}"
    return None


def check_alerts(main_db, ai_db, kafka):
    """Each alert of the history is on its topic, alike however often, and with the portal once."""
    validator = validator_for(SCHEMA)(SCHEMA, format_checker=FormatChecker())
    values = {}
    for record in topic(kafka, "anomaly-alerts"):
        alert = json.loads(record.value())
        if errors := [error.message for error in validator.iter_errors(alert)]:
            return f"{errors[0]}: {alert}"
        headers = record.headers()
        if record.key().decode() != alert["machine_id"] or headers[0] != ("id", alert["alert_id"].encode()):
            return f"key {record.key()}, headers {headers} of {alert['alert_id']}"
        if any(name == "mw-lsn" for name, _ in headers):
            return f"{alert['alert_id']} is not Debezium's"
        if values.setdefault(alert["alert_id"], record.value()) != record.value():
            return f"{alert['alert_id']} is there twice, and not alike"
    history = Counter(str(row[0]) for row in ai_db.execute("select id from anomaly_history"))
    shown = Counter(row[0] for row in main_db.execute("select data ->> 'alert_id' from alert"))
    if history != Counter(values.keys()) or shown != history:
        return f"{history.total()} in the history, {len(values)} on the topic, {shown.total()} with the portal"
    return None


def main():
    at = json.loads(sys.argv[1])
    kafka, portal = at["kafka"], at["portal"]
    admin = AdminClient({"log_level": 2, "bootstrap.servers": kafka})
    options = {"autocommit": True, "connect_timeout": 5}
    with psycopg.connect(at["postgres_main"], **options) as main_db, psycopg.connect(at["postgres_ai"], **options) as ai_db:

        def machines():
            return [machine["machine_id"] for machine in ask(f"{portal}/api/machines")[2]["machines"]]

        until("three brokers hold each record, two before it is taken", lambda: check_copies(admin))
        until("the portal shows the simulated machines", lambda: None if len(machines()) > 1 else machines())
        before, after = machines()[:2]
        begun = break_law(portal, before)
        until("a simulated machine breaks a law: the portal has the alert, by Debezium", lambda: check_told(main_db, before))
        print(f"simulated: {time.monotonic() - begun:.1f} s after it was put under the profile", flush=True)
        check_without_redis(at, before, lambda: main_db.execute("select count(*) from sensor_log").fetchone()[0])
        os.kill(at["pids"]["kafka"][0], signal.SIGKILL)
        begun = break_law(portal, after)
        until("and so does another while a broker of three is dead", lambda: check_told(main_db, after))
        print(f"simulated: {time.monotonic() - begun:.1f} s after the broker died", flush=True)
        for pid in at["pids"]["simulate"]:
            os.kill(pid, signal.SIGTERM)
        until("every reading that `simulate` wrote is in sensor_log once, exactly", lambda: check_rows(main_db, kafka))
        until("every alert is on anomaly-alerts, and with the portal once", lambda: check_alerts(main_db, ai_db, kafka))
        until("WebSocket: every alert once, numbered without a gap", lambda: check_stream(portal, ai_db))


if __name__ == "__main__":
    main()
