-- What the portal writes, and the registry of machines. Times are microseconds since 1970 UTC. What is listed by name is
-- in the order of its bytes, whatever the database's own.

create table machine (
    machine_id  varchar(50) collate "C" not null primary key,
    class       text    not null,
    -- A person or an import named the class: it is part of the catalogue. Else its first reading did.
    class_given boolean not null,
    name_en     text,
    name_ko     text,
    site        text,
    line        text,
    cell        text,
    criticality text    check (criticality in ('A', 'B', 'C')),
    asset_no    text,
    parameters  jsonb   not null default '{}',
    limits      jsonb   not null default '{}',
    attributes  jsonb   not null default '{}',
    -- Event time of its first reading; null before one.
    first_seen_us bigint,
    -- Source of its first reading; null before one.
    source      text,
    confirmed   boolean not null
);

-- Last number given of what must have no gap: `event` (seq), `audit` (sequence). Who writes for the portal holds the row
-- of `event` from its first effect to its commit, so numbers are given in commit order.
create table counter (
    name  text   not null primary key,
    value bigint not null
);
insert into counter (name, value) values ('event', 0), ('audit', 0);

-- Every alert of the topic, once.
create table alert (
    alert_id text   not null primary key,
    data     jsonb  not null,
    at_us    bigint not null
);

create table alarm (
    id         uuid not null primary key,
    machine_id text collate "C" not null,
    condition  text collate "C" not null,
    -- alarm::Alarm.
    state      jsonb not null,
    alert      text,
    text_en    text,
    text_ko    text,
    group_id   uuid,
    unique (machine_id, condition)
);

-- Where each alarm stood in the list after each change, so that a page is cut from the list as it was when paging began.
-- Old versions go, the newest of each alarm stays.
create table alarm_version (
    version    bigint   not null generated always as identity primary key,
    alarm_id   uuid     not null,
    machine_id text     not null,
    state      text     not null,
    subject    text     not null,
    severity   text     not null,
    rank       bigint   not null,
    priority   bigint   not null,
    changed_us bigint   not null
);
create index alarm_version_alarm on alarm_version (alarm_id, version);

-- Append-only; each hash is over the hash before it and the line.
create table audit (
    sequence bigint not null primary key,
    line     text   not null,
    hash     text   not null,
    subject  text   not null generated always as (line::jsonb ->> 'subject') stored
);
create index audit_subject on audit (subject, sequence);
create function audit_is_append_only() returns trigger language plpgsql as
    $$ begin raise exception 'the audit log is append-only'; end $$;
create trigger audit_is_not_changed before update or delete or truncate on audit
    for each statement execute function audit_is_append_only();

create table notification (
    position   bigint not null generated always as identity primary key,
    -- The idempotency key.
    id         uuid   not null unique,
    channel    text   not null,
    alarm_id   uuid   not null,
    alert_id   uuid   not null,
    -- Line of the audit log that it follows from.
    sequence   bigint not null,
    payload    text   not null,
    created_us bigint not null,
    state      text   not null check (state in ('waiting', 'sent', 'dead')),
    -- Not before; while it is leased, the end of the lease.
    due_us     bigint not null,
    attempts   bigint not null
);
create index notification_waiting on notification (channel, alarm_id, position) where state = 'waiting';

-- Written before the call; `ended_us` and `result` after it, null where the process died between.
create table notification_attempt (
    notification_id uuid   not null references notification (id) on delete cascade,
    attempt         bigint not null,
    begun_us        bigint not null,
    ended_us        bigint,
    result          text,
    primary key (notification_id, attempt)
);

create table event (
    seq   bigint not null primary key,
    kind  text   not null,
    data  text   not null,
    at_us bigint not null
);
create index event_time on event (at_us);

-- Windows in which machines are worked on; ended early, `until_us` says when.
create table maintenance (
    machine_id text   collate "C" not null,
    from_us    bigint not null,
    until_us   bigint not null,
    reason     text   not null,
    by         text   not null,
    role       text   not null,
    primary key (machine_id, from_us)
);
create index maintenance_until on maintenance (until_us);
