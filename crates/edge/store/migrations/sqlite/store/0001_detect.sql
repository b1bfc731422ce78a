-- What detect writes, and the registry of machines. Times are microseconds since 1970 UTC.

create table consumer_offset (
    topic       text    not null,
    partition   integer not null,
    next_offset integer not null,
    primary key (topic, partition)
) without rowid;

-- Every transition of every condition; from a row the alert can be written again byte for byte.
-- `position` is the place in commit order, and the place of its row in the outbox.
create table anomaly_history (
    position      integer primary key autoincrement,
    id            text    not null unique,
    machine_id    text    not null,
    class         text    not null,
    failure_type  text    not null,
    kind          text    not null,
    severity      text    not null,
    score         real    not null,
    condition     text    not null,
    condition_id  text    not null,
    started_at    integer not null,
    timestamp     integer not null,
    arrived_at    integer not null,
    model         text    not null,
    model_version text    not null,
    topic         text    not null,
    partition     integer not null,
    "offset"      integer not null,
    "index"       integer not null,
    reason        text    not null,
    reading       text,
    text_en       text    not null,
    text_ko       text    not null,
    suspended     integer,
    caught_up     integer,
    notice        integer not null
);
create index anomaly_history_time on anomaly_history (timestamp, position);
create index anomaly_history_machine on anomaly_history (machine_id, timestamp, position);
create index anomaly_history_failure on anomaly_history (failure_type, timestamp, position);
create index anomaly_history_condition on anomaly_history (condition_id, kind);

create table outbox (
    position      integer primary key,
    id            text not null,
    aggregatetype text not null,
    aggregateid   text not null,
    type          text not null,
    payload       text not null,
    traceparent   text
);

create table machine_event (
    position   integer primary key autoincrement,
    id         text    not null unique,
    machine_id text    not null,
    kind       text    not null,
    timestamp  integer not null,
    topic      text    not null,
    partition  integer not null,
    "offset"   integer not null,
    "index"    integer not null,
    detail     text    not null
);
create index machine_event_machine on machine_event (machine_id, timestamp, position);

create table catalogue (
    hash     text not null primary key,
    document text not null
) without rowid;

create table activation (
    topic          text    not null,
    partition      integer not null,
    from_offset    integer not null,
    catalogue_hash text    not null references catalogue (hash),
    model_hash     text,
    primary key (topic, partition, from_offset)
) without rowid;

create table fit (
    hash     text not null primary key,
    name     text not null,
    document text not null
) without rowid;

create table snapshot (
    partition integer not null,
    slab      integer not null,
    "offset"  integer not null,
    bytes     blob    not null,
    primary key (partition, slab)
);

create table machine (
    machine_id  text    not null primary key,
    class       text    not null,
    -- A person or an import named the class: it is part of the catalogue. Else its first reading did.
    class_given integer not null,
    name_en     text,
    name_ko     text,
    site        text,
    line        text,
    cell        text,
    criticality text    check (criticality in ('A', 'B', 'C')),
    asset_no    text,
    parameters  text    not null default '{}',
    limits      text    not null default '{}',
    attributes  text    not null default '{}',
    -- Event time of its first reading; null before one.
    first_seen_us integer,
    -- Source of its first reading; null before one.
    source      text,
    confirmed   integer not null
) without rowid;
