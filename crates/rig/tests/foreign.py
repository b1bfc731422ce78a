#!/usr/bin/env python3
"""A plant as programs of other people see it, by public clients alone: foreign.py DOCUMENT, which is what `rig plant up` printed.

A producer with librdkafka's own partitioner and one with Java's write readings; what the contracts promise of them must be in sensor_log,
on anomaly-alerts and the dead letters, in Redis and on the WebSocket. Prints what was checked; ends within three minutes.
"""

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psycopg
import redis
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from jsonschema import FormatChecker
from jsonschema.validators import validator_for
from websockets.sync.client import connect

PROGRAM = Path(sys.argv[0]).stem
UNTIL = time.monotonic() + 180
SCHEMA = json.loads((Path(__file__).parents[3] / "docs/alert.schema.json").read_text())
ALERT_IDS = uuid.UUID("b1c6e4a2-7c0e-5d53-9a57-2f1f0a9d6e31")
# Seconds of event time: long enough for a condition to clear, which takes its law 60 s.
SPAN = 90
# In this second each machine begins to break the law of power.
BREAKS = 10
BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
# sensor_log as programs of the seed know it.
COLUMNS = {
    "id": ("bigint", None),
    "machine_id": ("character varying", 50),
    "timestamp": ("timestamp without time zone", None),
    "air_temp_k": ("numeric", (10, 2)),
    "process_temp_k": ("numeric", (10, 2)),
    "rpm": ("integer", None),
    "torque_nm": ("numeric", (10, 2)),
    "tool_wear_min": ("integer", None),
    "created_at": ("timestamp without time zone", None),
}
# What is no reading, and what it is refused for.
JUNK = [b"{", b"\xff\xfe", b"", b'{"machine_id":"junk"}', b"null"]


def until(what, look):
    """Waits until `look` has nothing to complain of."""
    while complaint := look():
        if time.monotonic() > UNTIL:
            sys.exit(f"{PROGRAM}: {what}: {complaint}")
        time.sleep(0.1)
    print(f"{PROGRAM}: {what}", flush=True)


def machines():
    """Each machine with the producers that send it, in turn."""
    found = {f"crc32-{n:02}": ["consistent_random"] for n in range(12)}
    found |= {f"murmur2-{n:02}": ["murmur2_random"] for n in range(12)}
    found |= {f"설비-{n:02}": ["murmur2_random"] for n in range(3)}
    return found | {f"both-{n:02}": ["consistent_random", "murmur2_random"] for n in range(3)}


def reading(dice, machine, second):
    air = Decimal(dice.randrange(2980, 3020)) / 10
    broken = BREAKS <= second < BREAKS + 3
    return {
        "machine_id": machine,
        "timestamp": BEGIN + timedelta(seconds=second),
        "air_temp_k": air,
        "process_temp_k": air + 10 + Decimal(dice.randrange(0, 99)) / 100,
        "rpm": 1500 if broken else dice.randrange(1450, 1550),
        "torque_nm": Decimal(7000 if broken else dice.randrange(3500, 4500)) / 100,
        "tool_wear_min": second // 30,
    }


def spelled(row, second):
    """The same reading as different programs spell it."""
    time_text = row["timestamp"].strftime("%Y-%m-%dT%H:%M:%SZ")
    if second % 4 == 1:
        time_text = row["timestamp"].astimezone(timezone(timedelta(hours=9))).isoformat()
    fields = {name: float(value) if isinstance(value, Decimal) else value for name, value in row.items()}
    fields["timestamp"] = time_text.replace("Z", ".000Z") if second % 4 == 2 else time_text
    if second % 4 == 3:
        fields = dict(reversed(fields.items())) | {"rpm": float(row["rpm"]), "공장": "울산"}
    return json.dumps(fields, ensure_ascii=second % 2 == 0)


def produce(kafka):
    """Sends everything; the rows by machine, and each record's place: (machine, second or None) -> (partition, offset)."""
    dice = random.Random(20261127)
    # An empty setting leaves librdkafka its default, `consistent_random`.
    settings = {"log_level": 2, "bootstrap.servers": kafka, "acks": "all", "enable.idempotence": True, "linger.ms": 5}
    producers = {"consistent_random": Producer(settings), "murmur2_random": Producer(settings | {"partitioner": "murmur2_random"})}
    sent, places, failed = {}, {}, []

    def delivered(name):
        return lambda error, message: failed.append(error) if error else places.update({name: (message.partition(), message.offset())})

    def send(producer, machine, value, seconds):
        names = tuple((machine, second) for second in seconds)
        producers[producer].produce("sensor-raw-data", value, key=machine, on_delivery=delivered(names))

    for machine, partitioners in machines().items():
        rows = [reading(dice, machine, second) for second in range(SPAN)]
        sent[machine] = rows
        texts = [spelled(row, second) for second, row in enumerate(rows)]
        for second in range(SPAN - 20):
            send(partitioners[second % len(partitioners)], machine, texts[second], [second])
        # The last ones as an array and as lines: either way one record.
        at = SPAN - 20
        send(partitioners[0], machine, f"[{', '.join(texts[at:at + 10])}]", range(at, at + 10))
        send(partitioners[0], machine, "\n".join(texts[at + 10:]) + "\n", range(at + 10, SPAN))
    for number, junk in enumerate(JUNK):
        send("consistent_random", f"junk-{number}", junk, [None])
    left = sum(producer.flush(20) for producer in producers.values())
    if failed or left:
        sys.exit(f"foreign: {left} records were not taken: {failed[:1]}")
    by_name = {name: (*place, index) for names, place in places.items() for index, name in enumerate(names)}
    print(f"foreign: {len(places)} records of {len(sent)} machines sent by two partitioners", flush=True)
    return sent, by_name


def topic(kafka, name):
    """Every record of a topic, as a consumer of a group of its own reads it."""
    consumer = Consumer({"log_level": 2, "bootstrap.servers": kafka, "group.id": f"foreign-{uuid.uuid4()}", "enable.auto.commit": False, "enable.partition.eof": True})
    try:
        left, records = set(consumer.list_topics(name, 10).topics[name].partitions), []
        consumer.assign([TopicPartition(name, number, 0) for number in left])
        while left:
            record = consumer.poll(1)
            if time.monotonic() > UNTIL:
                sys.exit(f"foreign: {name} was not read to its end")
            if record is None:
                continue
            if not record.error():
                records.append(record)
            elif record.error().code() == KafkaError._PARTITION_EOF:
                left.discard(record.partition())
            else:
                sys.exit(f"foreign: {name}: {record.error()}")
        return records
    finally:
        consumer.close()


def check_columns(main):
    sql = """select column_name, data_type, character_maximum_length, numeric_precision, numeric_scale
             from information_schema.columns where table_schema = 'public' and table_name = 'sensor_log'"""
    found = {}
    for name, kind, length, precision, scale in main.execute(sql):
        found[name] = (kind, (precision, scale) if kind == "numeric" else length)
    wrong = {name: found.get(name) for name, wanted in COLUMNS.items() if found.get(name) != wanted}
    return wrong and f"columns of sensor_log are {wrong}"


def check_rows(main, sent):
    names = ["machine_id", "timestamp", "air_temp_k", "process_temp_k", "rpm", "torque_nm", "tool_wear_min"]
    found = Counter(main.execute(f"select {', '.join(names)} from sensor_log"))
    wanted = Counter(tuple(v.replace(tzinfo=None) if isinstance(v, datetime) else v for v in (row[name] for name in names)) for rows in sent.values() for row in rows)
    if found != wanted:
        return f"{found.total()} rows for {wanted.total()}; missing {list((wanted - found))[:1]}, too many {list((found - wanted))[:1]}"
    return None


def check_alerts(kafka, ai, sent, places):
    records = topic(kafka, "anomaly-alerts")
    history = {str(row[0]): row[1:] for row in ai.execute("select id, machine_id, kind, failure_type from anomaly_history")}
    alerts = [json.loads(record.value()) for record in records]
    raised, partitions = defaultdict(list), defaultdict(set)
    validator = validator_for(SCHEMA)(SCHEMA, format_checker=FormatChecker())
    for record, alert in zip(records, alerts):
        if errors := [error.message for error in validator.iter_errors(alert)]:
            return f"{errors[0]}: {alert}"
        headers = record.headers()
        machine, at = alert["machine_id"], alert["position"]
        when = datetime.fromisoformat(alert["timestamp"])
        us = (when - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
        name = "|".join(map(str, [machine, alert["condition"], alert["kind"], us, at["topic"], at["partition"], at["offset"], at["index"]]))
        if alert["alert_id"] != str(uuid.uuid5(ALERT_IDS, name)):
            return f"the id of {alert['alert_id']} is not that of {name}"
        if record.key().decode() != machine or headers[0] != ("id", alert["alert_id"].encode()) or headers[1] != ("eventType", alert["kind"].encode()):
            return f"key {record.key()}, headers {headers} of {alert['alert_id']}"
        if history.get(alert["alert_id"]) != (machine, alert["kind"], alert["failure_type"]):
            return f"{alert['alert_id']} is not so in anomaly_history"
        partitions[machine].add(record.partition())
        if alert["failure_type"] == "PowerFailure":
            if places[machine, int((when - BEGIN).total_seconds())] != (at["partition"], at["offset"], at["index"]):
                return f"the reading of {alert['alert_id']} lies elsewhere"
            raised[machine].append(alert["kind"])
    if len(alerts) != len(history) or len({alert["alert_id"] for alert in alerts}) != len(alerts):
        return f"{len(alerts)} records for {len(history)} rows of the history"
    if wrong := [machine for machine, numbers in partitions.items() if len(numbers) > 1]:
        return f"alerts of {wrong[0]} lie on several partitions"
    split = 0
    for machine in sent:
        lies = {place[0] for (name, _), place in places.items() if name == machine}
        split += len(lies) > 1
        # A machine on two partitions is judged on each alone; one that two producers send to one arrives in any order.
        told = raised[machine].count("raised") == 2 if len(lies) > 1 else raised[machine] == ["raised", "cleared"]
        if not told and not (machine.startswith("both-") and len(lies) == 1):
            return f"power of {machine}: {raised[machine]}"
    return None if split else "no machine lies on two partitions: choose other names"


def check_dead_letters(kafka, places):
    letters = topic(kafka, "sensor-raw-data.dlq")
    if len(letters) != len(JUNK):
        return f"{len(letters)} letters for {len(JUNK)}"
    for letter in letters:
        headers = {name: (value or b"").decode() for name, value in letter.headers()}
        number = int(letter.key().decode().removeprefix("junk-"))
        place = (int(headers["x-orig-partition"]), int(headers["x-orig-offset"]))
        if (letter.value() or b"") != JUNK[number] or place != places[f"junk-{number}", None][:2] or letter.partition() != place[0]:
            return f"letter {number}: {letter.value()} {headers}"
        if headers["x-orig-topic"] != "sensor-raw-data" or not headers["x-error-code"] or not headers["x-error"]:
            return f"letter {number}: {headers}"
    return None


def check_redis(url, sent):
    client = redis.Redis.from_url(url, decode_responses=True)
    for machine, rows in sent.items():
        if machine.startswith("both-"):
            continue
        keys = [f"machine:{machine}:{name}" for name in ("last_torque", "temp_1m_avg", "rpm_variance", "status")]
        values = client.mget(keys[:3])
        minute = rows[-60:]
        rpm = [row["rpm"] for row in minute]
        wanted = [rows[-1]["torque_nm"], statistics.mean(row["process_temp_k"] for row in minute), statistics.pvariance(rpm)]
        if None in values or any(abs(float(found) - float(value)) > 0.01 for found, value in zip(values, wanted)):
            return f"{machine}: {values}, not {[float(value) for value in wanted]}"
        if client.type(keys[3]) != "hash" or not client.hgetall(keys[3]):
            return f"{keys[3]} is no hash"
        # Ten minutes at least, of which the test has used one at most.
        if min(client.ttl(key) for key in keys) < 540:
            return f"{machine}: {[client.ttl(key) for key in keys]} s to live"
    return None


def check_stream(portal, ai):
    wanted = Counter(str(row[0]) for row in ai.execute("select id from anomaly_history"))
    told, last = Counter(), 0
    with connect(f"ws{portal.removeprefix('http')}/ws?after=0", open_timeout=5) as stream:
        while told != wanted and time.monotonic() < UNTIL:
            try:
                frame = json.loads(stream.recv(timeout=2))
            except TimeoutError:
                break
            if set(frame) < {"seq", "type", "data"}:
                return f"a frame is {frame}"
            if frame["type"] != "live":
                if frame["seq"] != last + 1:
                    return f"{frame['seq']} follows {last}"
                last = frame["seq"]
            if frame["type"] == "alert":
                told[frame["data"]["alert_id"]] += 1
    return None if told == wanted else f"{told.total()} alerts of {wanted.total()}"


def check_encrypted(databases, redis_url):
    """The plant's own services come over TLS alone; this program comes without."""
    for database in databases:
        sql = "select application_name, ssl from pg_stat_ssl join pg_stat_activity using (pid) where application_name like 'millwright%'"
        sessions = database.execute(sql).fetchall()
        in_the_open = sorted({name for name, encrypted in sessions if not encrypted})
        if in_the_open or len(sessions) < 2:
            return f"{len(sessions)} sessions, without TLS {in_the_open}"
    plain = redis.Redis.from_url(redis_url)
    port = redis_url.rpartition(":")[2]
    secure = [client for client in plain.client_list() if client["laddr"].rpartition(":")[2] != port]
    # Who writes live values, who reads them, and who hears of changes.
    return None if len(secure) >= 3 else f"{len(secure)} clients of Redis come over TLS"


def check_scattered(portal):
    _, _, body, _ = ask(f"{portal}/api/alarms")
    found = [alarm for alarm in body["alarms"] if alarm["condition"] == "two_partitions"]
    if len(found) != 1:
        return f"{len(found)} alarms tell of it"
    alarm = found[0]
    named = ("both-" in alarm["text"]["en"], "murmur2_random" in alarm["text"]["en"], alarm["subject"], alarm["severity"], alarm["standing"])
    return None if named == (True, True, "system", "critical", True) else f"{alarm}"


def ask(url, body=None):
    """Status, headers and document of an answer, and the seconds that it took."""
    begun = time.monotonic()
    try:
        answer = urlopen(Request(url, data=body), timeout=10)
    except HTTPError as refused:
        answer = refused
    with answer:
        return answer.status, answer.headers, json.load(answer), time.monotonic() - begun


def family(pid):
    """A process and its children."""
    found = [pid]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found


def check_away(at):
    """Each engine stands still for a while: the portal says which, since when and why, and lets nobody wait for it."""

    def state(name):
        status, _, body, _ = ask(f"{at['portal']}/readyz")
        return status, next(found for found in body["dependencies"] if found["name"] == name), body

    def is_away(name):
        status, found, body = state(name)
        told = not found["ok"] and found["error"] and datetime.fromisoformat(found["since"]) >= begun - timedelta(seconds=2)
        if not told or status != (503 if found["needed"] else 200) or (name in body["failed"]) != found["needed"]:
            return f"{status} {found}"
        return None

    def is_back(name):
        status, found, _ = state(name)
        return None if (status, found["ok"], found["since"]) == (200, True, None) else f"{status} {found}"

    for name in ("redis", "postgres_ai", "postgres_main", "kafka"):
        stopped = [member for pid in at["pids"][name] for member in family(pid)]
        begun = datetime.now(UTC)
        try:
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            until(f"/readyz: {name} is away, since when and why", lambda name=name: is_away(name))
            if name == "kafka":
                value = spelled(reading(random.Random(1), "murmur2-00", SPAN), 0).encode()
                status, headers, body, seconds = ask(f"{at['portal']}/api/readings", value)
                if status != 503 or not headers["Retry-After"] or seconds > 1:
                    sys.exit(f"foreign: the intake answers {status} after {seconds:.1f} s: {body}")
                print(f"foreign: the intake lets nobody wait for brokers that are away ({seconds * 1000:.0f} ms)", flush=True)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        back = time.monotonic()
        until(f"/readyz: {name} is back", lambda name=name: is_back(name))
        print(f"foreign: seen {time.monotonic() - back:.1f} s after it went on", flush=True)


def check_made_anew(at, main_db, ai_db):
    """The topic of readings is deleted and made anew: who stands above its end stands still and says so, until a person goes on."""
    commands = {name: Path(f"/proc/{at['pids'][name][0]}/cmdline").read_text().split("\0") for name in ("ingest", "detect")}
    databases = {"ingest": main_db, "detect": ai_db}

    def millwright(*words):
        command = commands["ingest"]
        config = command[command.index("--config") + 1]
        done = subprocess.run([command[0], *words, "--config", config, "--output", "json"], capture_output=True, text=True, timeout=60)
        if done.returncode not in (0, 4 if words == ("doctor",) else 0):
            sys.exit(f"foreign: {' '.join(words)}: {done.stderr}")
        return json.loads(done.stdout)

    def changes(*words):
        return millwright(*words)["changes"]

    def positions(name):
        sql = "select partition, next_offset from consumer_offset where topic = 'sensor-raw-data' and next_offset > 0"
        return dict(databases[name].execute(sql).fetchall())

    def ready(name):
        command = commands[name]
        return ask(f"http://127.0.0.1:{command[command.index('--ops-port') + 1]}/readyz")[::2]

    def stands_still(name):
        status, body = ready(name)
        found = next(found for found in body["dependencies"] if found["name"] == "positions")
        told = "stands still: it ends at 0, below the position" in str(found["error"]) and "topics resume" in found["error"]
        return None if status == 503 and told and found["since"] else f"{status} {body}"

    def is_stored():
        count = main_db.execute("select count(*) from sensor_log where machine_id = 'anew'").fetchone()[0]
        return None if count == 2 else f"{count} rows"

    before = {name: positions(name) for name in commands}
    admin = AdminClient({"log_level": 2, "bootstrap.servers": at["kafka"]})
    # A broker that went on just now may not be counted among those alive yet; a client that hears of none asks again in minutes.
    until("a controller is told of", lambda: None if admin.list_topics(timeout=5).controller_id >= 0 else "none")
    admin.delete_topics(["sensor-raw-data"], operation_timeout=10)["sensor-raw-data"].result(60)
    until("the topic of readings is gone", lambda: "sensor-raw-data" in admin.list_topics(timeout=5).topics or None)
    shown, made = changes("topics", "apply", "--dry-run"), changes("topics", "apply")
    if not made or shown != made or changes("topics", "apply"):
        sys.exit(f"foreign: to be made {shown}, made {made}")
    for name in commands:
        until(f"{name} stands still below a topic that was made anew", lambda name=name: stands_still(name))
    if positions("ingest") != before["ingest"] or positions("detect") != before["detect"]:
        sys.exit(f"foreign: positions moved by themselves: {before}, {positions('ingest')}, {positions('detect')}")
    told = next(check for check in millwright("doctor")["checks"] if check["check"] == "positions")
    if told["state"] != "fail" or "topics resume" not in told["next"]:
        sys.exit(f"foreign: doctor says {told}")
    shown, moved = changes("topics", "resume", "--dry-run"), changes("topics", "resume")
    if shown != moved or len(moved) != sum(map(len, before.values())) or changes("topics", "resume"):
        sys.exit(f"foreign: to be moved {shown}, moved {moved}")
    for name in commands:
        until(f"{name} goes on where a person said", lambda name=name: None if ready(name)[0] == 200 else str(ready(name)))
    row = reading(random.Random(2), "anew", SPAN) | {"timestamp": datetime.now(UTC).replace(microsecond=0)}
    producer = Producer({"log_level": 2, "bootstrap.servers": at["kafka"], "acks": "all"})
    producer.produce("sensor-raw-data", spelled(row, 0), key="anew")
    producer.flush(20)
    status, _, body, _ = ask(f"{at['portal']}/api/readings", spelled(row | {"timestamp": row["timestamp"] + timedelta(seconds=1)}, 0).encode())
    if status != 202:
        sys.exit(f"foreign: the intake answers {status}: {body}")
    until("readings on the new topic are stored", is_stored)
    until("and judged", lambda: None if sum(positions("detect").values()) == 2 else str(positions("detect")))


def check_regrouped(at, main_db, ai_db):
    """A broker cannot load any more what it keeps of the groups: the services go on by other names, and doctor says what is wrong."""

    def coordinator(group):
        """The partition of `__consumer_offsets` that a group lies on: Java's hash of its name."""
        code = 0
        for char in group:
            code = (31 * code + ord(char)) & 0xFFFFFFFF
        return abs(code - (code >> 31 << 32)) % len(admin.list_topics("__consumer_offsets", timeout=5).topics["__consumer_offsets"].partitions)

    def went_through():
        stored = main_db.execute("select count(*) from sensor_log where machine_id = 'regrouped'").fetchone()[0]
        raised = ai_db.execute("select count(*) from anomaly_history where machine_id = 'regrouped'").fetchone()[0]
        shown = main_db.execute("select count(*) from alert where data ->> 'machine_id' = 'regrouped'").fetchone()[0]
        return None if (stored, raised, shown) == (1, 1, 1) else f"{stored} stored, {raised} raised, {shown} shown"

    admin = AdminClient({"log_level": 2, "bootstrap.servers": at["kafka"]})
    # The one client that may write there; what it writes is no record of a group.
    writer = Producer({"log_level": 2, "bootstrap.servers": at["kafka"], "client.id": "__admin_client"})
    for group in ("ingestor-group", "detector-group", "portal-group"):
        writer.produce("__consumer_offsets", partition=coordinator(group), key=b"\0\x08\xff", value=b"\0")
    if writer.flush(20):
        sys.exit("foreign: the brokers do not take what makes groups unreadable")
    command = Path(f"/proc/{at['pids']['ingest'][0]}/cmdline").read_text().split("\0")
    for name in ("kafka", "ingest", "detect", "portal"):
        for pid in at["pids"][name]:
            os.kill(pid, signal.SIGKILL)
    begun = time.monotonic()
    row = reading(random.Random(3), "regrouped", SPAN) | {"timestamp": datetime.now(UTC).replace(microsecond=0), "rpm": 1500, "torque_nm": Decimal(70)}
    producer = Producer({"log_level": 2, "bootstrap.servers": at["kafka"], "acks": "all", "reconnect.backoff.max.ms": 200})
    producer.produce("sensor-raw-data", spelled(row, 0), key="regrouped")
    producer.flush(60)
    until("groups that no broker coordinates: services started now go on by other names", went_through)
    print(f"foreign: {time.monotonic() - begun:.1f} s after the broker died", flush=True)
    doctor = [command[0], "doctor", "--config", command[command.index("--config") + 1], "--output", "json"]
    checks = json.loads(subprocess.run(doctor, capture_output=True, text=True, timeout=60).stdout)["checks"]
    told = next(check for check in checks if check["check"] == "kafka groups")
    if told["state"] != "fail" or not all(group in told["says"] for group in ("ingestor-group", "detector-group", "portal-group")):
        sys.exit(f"foreign: doctor says {told}")


def main():
    at = json.loads(sys.argv[1])
    kafka = at["kafka"]
    options = {"autocommit": True, "connect_timeout": 5}
    with psycopg.connect(at["postgres_main"], **options) as main_db, psycopg.connect(at["postgres_ai"], **options) as ai_db:
        sent, places = produce(kafka)
        until("psycopg: sensor_log has the seed's columns", lambda: check_columns(main_db))
        until("psycopg: every reading is in sensor_log once, exactly", lambda: check_rows(main_db, sent))
        until("consumer: every alert is on anomaly-alerts once, valid by its schema", lambda: check_alerts(kafka, ai_db, sent, places))
        until("consumer: every refused record is a dead letter once", lambda: check_dead_letters(kafka, places))
        until("redis-py: keys and status of every machine", lambda: check_redis(at["redis"], sent))
        until("WebSocket: every alert once, numbered without a gap", lambda: check_stream(at["portal"], ai_db))
        until("alarm: machines that two partitioners sent to two partitions are told of", lambda: check_scattered(at["portal"]))
        if main_db.execute("show ssl").fetchone() == ("on",):
            until("PostgreSQL, Redis: the services come over TLS alone", lambda: check_encrypted((main_db, ai_db), at["redis"]))
        check_away(at)
        check_made_anew(at, main_db, ai_db)
        check_regrouped(at, main_db, ai_db)


if __name__ == "__main__":
    main()
