-- What ingest writes. Times that end in `_us` are microseconds since 1970 UTC.

create table consumer_offset (
    topic       text    not null,
    partition   integer not null,
    next_offset bigint  not null,
    primary key (topic, partition)
);

create table activation (
    topic          text    not null,
    partition      integer not null,
    from_offset    bigint  not null,
    catalogue_hash text    not null,
    primary key (topic, partition, from_offset)
);

-- The class `mill`. Days are made as readings come; another class gets its own table then, of the same frame.
-- `created_at` is the reading's arrival on the bus.
create table sensor_log (
    id              bigserial,
    -- By bytes, as an index that asks the locale costs COPY far more.
    machine_id      varchar(50) collate "C" not null,
    timestamp       timestamp   not null,
    air_temp_k      decimal(10,2),
    process_temp_k  decimal(10,2),
    rpm             integer,
    torque_nm       decimal(10,2),
    tool_wear_min   integer,
    created_at      timestamp default current_timestamp,
    product_type    varchar(8),
    seq             bigint,
    -- Two bits a channel, in the order of the class file: 0 good, 1 uncertain, 2 bad, 3 missing; null: all good.
    quality         integer,
    -- 1 late, 2 out of order, 4 ahead; null: none.
    flags           smallint,
    bus_partition   smallint,
    bus_offset      bigint,
    bus_index       integer
) partition by range (timestamp);
create index sensor_log_machine on sensor_log (machine_id, timestamp);

-- Machines of a partition, numbered from 0 as they were first seen.
create table bus_machine (
    partition  integer not null,
    number     integer not null,
    machine_id text    not null,
    class      text    not null,
    primary key (partition, number)
);
create index bus_machine_id on bus_machine (machine_id);

-- Newest event times of 256 machines of a partition, in order of their numbers.
create table newest (
    partition integer not null,
    slab      integer not null,
    bytes     bytea   not null,
    primary key (partition, slab)
);

-- Each partition counts for itself, so that no two processes wait for one row; -1 is the HTTP door.
create table ledger (
    source    text    not null,
    partition integer not null,
    received  bigint  not null,
    stored    bigint  not null,
    rejected  bigint  not null,
    duplicate bigint  not null,
    primary key (source, partition)
);

create table dead_letter (
    id          uuid    not null primary key,
    code        text    not null,
    error       text    not null,
    payload     bytea   not null,
    machine_id  text,
    source      text    not null,
    topic       text    not null,
    partition   integer,
    "offset"    bigint,
    "index"     bigint  not null,
    arrived_us  bigint  not null,
    replayed_us bigint
);
create index dead_letter_arrival on dead_letter (arrived_us, id);

-- The newest arrival (to the minute, rounded up) that a partition of the bus brought into a day of a class's table, the
-- day counted from 1970.
create table sensor_day (
    class             text    not null,
    day               bigint  not null,
    partition         integer not null,
    newest_arrival_us bigint  not null,
    primary key (class, day, partition)
);
