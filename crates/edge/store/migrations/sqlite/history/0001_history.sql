-- What ingest writes. Times are microseconds since 1970 UTC.

create table consumer_offset (
    topic       text    not null,
    partition   integer not null,
    next_offset integer not null,
    primary key (topic, partition)
) without rowid;

create table activation (
    topic          text    not null,
    partition      integer not null,
    from_offset    integer not null,
    catalogue_hash text    not null,
    primary key (topic, partition, from_offset)
) without rowid;

-- Machines of a partition, numbered from 0 as they were first seen.
create table machine (
    partition  integer not null,
    number     integer not null,
    machine_id text    not null,
    class      text    not null,
    primary key (partition, number)
) without rowid;

-- Newest event times of 256 machines of a partition, in order of their numbers.
create table newest (
    partition integer not null,
    slab      integer not null,
    bytes     blob    not null,
    primary key (partition, slab)
);

-- Readings of one partition and class, sorted by (machine, time, bus order).
create table chunk (
    id             integer primary key,
    partition      integer not null,
    class          text    not null,
    -- Machine numbers, both inclusive.
    first_machine  integer not null,
    last_machine   integer not null,
    -- Event times, both inclusive.
    min_time       integer not null,
    max_time       integer not null,
    newest_arrival integer not null,
    -- Ingest's position before and after what wrote its rows.
    from_offset    integer not null,
    next_offset    integer not null,
    -- How often its rows were merged; null: they are not merged any more.
    level          integer,
    rows           integer not null,
    -- Which rows are whose, with statistics of every channel.
    directory      blob    not null,
    readings       blob    not null
);
-- Holds every column by which a chunk is chosen, so that choosing reads no blob.
create index chunk_time on chunk (partition, max_time, min_time, first_machine, last_machine, from_offset, next_offset);
create index chunk_level on chunk (partition, class, level, from_offset, next_offset, newest_arrival, rows)
    where level is not null;
create index chunk_arrival on chunk (newest_arrival);

create table ledger (
    source    text    not null primary key,
    received  integer not null,
    stored    integer not null,
    rejected  integer not null,
    duplicate integer not null
) without rowid;

create table dead_letter (
    id          text    not null unique,
    code        text    not null,
    error       text    not null,
    payload     blob    not null,
    machine_id  text,
    source      text    not null,
    topic       text    not null,
    partition   integer,
    "offset"    integer,
    "index"     integer not null,
    arrived_us  integer not null,
    replayed_us integer
);
create index dead_letter_arrival on dead_letter (arrived_us, id);
