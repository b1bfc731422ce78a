-- What detect writes. Times are UTC.

create table consumer_offset (
    topic       text    not null,
    partition   integer not null,
    next_offset bigint  not null,
    primary key (topic, partition)
);

-- Every transition of every condition; from a row the alert can be written again.
-- `position` is the place in commit order, and the place of its row in the outbox.
create table anomaly_history (
    id            uuid             not null primary key,
    machine_id    varchar(50)      not null,
    failure_type  text             not null,
    kind          text             not null check (kind in ('raised', 'changed', 'cleared')),
    severity      text             not null,
    score         double precision not null,
    condition     text             not null,
    started_at    timestamp        not null,
    timestamp     timestamp        not null,
    model         text             not null,
    model_version text             not null,
    topic         text             not null,
    partition     integer          not null,
    "offset"      bigint           not null,
    "index"       bigint           not null,
    reason        jsonb            not null,
    reading       jsonb,
    class         text             not null,
    condition_id  uuid             not null,
    arrived_at    timestamp        not null,
    text_en       text             not null,
    text_ko       text             not null,
    suspended     boolean,
    caught_up     boolean,
    notice        boolean          not null,
    position      bigint           not null generated always as identity unique
);
create index anomaly_history_time on anomaly_history (timestamp, position);
create index anomaly_history_machine on anomaly_history (machine_id, timestamp, position);
create index anomaly_history_failure on anomaly_history (failure_type, timestamp, position);
create index anomaly_history_condition on anomaly_history (condition_id, kind);

-- What the relay, or Debezium's EventRouter, reads from the log. The topic carries the text of `payload`.
create table outbox (
    id            uuid         not null primary key,
    aggregatetype varchar(255) not null,
    aggregateid   varchar(255) not null,
    type          varchar(255) not null,
    payload       jsonb        not null,
    traceparent   varchar(64),
    position      bigint       not null unique,
    created_at    timestamp    not null default (now() at time zone 'UTC')
);
-- Rows that are deleted for their age are not published.
create publication millwright_outbox for table outbox with (publish = 'insert');

create table machine_event (
    id         uuid        not null primary key,
    machine_id varchar(50) not null,
    kind       text        not null,
    timestamp  timestamp   not null,
    topic      text        not null,
    partition  integer     not null,
    "offset"   bigint      not null,
    "index"    bigint      not null,
    detail     text        not null,
    position   bigint      not null generated always as identity unique
);
create index machine_event_machine on machine_event (machine_id, timestamp, position);
create index machine_event_machine_position on machine_event (machine_id, position);

create table catalogue (
    hash     text not null primary key,
    document text not null
);

create table activation (
    topic          text    not null,
    partition      integer not null,
    from_offset    bigint  not null,
    catalogue_hash text    not null references catalogue (hash),
    model_hash     text,
    primary key (topic, partition, from_offset)
);

create table fit (
    hash     text not null primary key,
    name     text not null,
    document text not null
);

create table snapshot (
    partition integer not null,
    slab      bigint  not null,
    "offset"  bigint  not null,
    bytes     bytea   not null,
    primary key (partition, slab)
);
-- They come compressed.
alter table snapshot alter column bytes set storage external;
