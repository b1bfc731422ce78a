-- What the portal writes. Times are microseconds since 1970 UTC.

-- Last number given of what must have no gap: `event` (seq), `audit` (sequence).
create table counter (
    name  text    not null primary key,
    value integer not null
) without rowid;
insert into counter (name, value) values ('event', 0), ('audit', 0);

create table alarm (
    id         text not null primary key,
    machine_id text not null,
    condition  text not null,
    -- JSON of alarm::Alarm.
    state      text not null,
    alert      text,
    text_en    text,
    text_ko    text,
    group_id   text,
    unique (machine_id, condition)
) without rowid;

-- Where each alarm stood in the list after each change, so that a page is cut from the list as it was when paging began.
-- Old versions go, the newest of each alarm stays.
create table alarm_version (
    version    integer primary key autoincrement,
    alarm_id   text    not null,
    machine_id text    not null,
    state      text    not null,
    subject    text    not null,
    severity   text    not null,
    rank       integer not null,
    priority   integer not null,
    changed_us integer not null
);
create index alarm_version_alarm on alarm_version (alarm_id, version);

-- Append-only; each hash is over the hash before it and the line.
create table audit (
    sequence integer primary key,
    line     text    not null,
    hash     text    not null,
    subject  text    not null generated always as (json_extract(line, '$.subject')) virtual
);
create index audit_subject on audit (subject, sequence);
create trigger audit_is_not_changed before update on audit begin select raise(abort, 'the audit log is append-only'); end;
create trigger audit_is_not_deleted before delete on audit begin select raise(abort, 'the audit log is append-only'); end;

create table notification (
    position   integer primary key autoincrement,
    -- The idempotency key.
    id         text    not null unique,
    channel    text    not null,
    alarm_id   text    not null,
    alert_id   text    not null,
    -- Line of the audit log that it follows from.
    sequence   integer not null,
    payload    text    not null,
    created_us integer not null,
    state      text    not null check (state in ('waiting', 'sent', 'dead')),
    -- Not before; while it is leased, the end of the lease.
    due_us     integer not null,
    attempts   integer not null
);
create index notification_waiting on notification (channel, alarm_id, position) where state = 'waiting';

-- Written before the call; `ended_us` and `result` after it, null where the process died between.
create table notification_attempt (
    notification_id text    not null,
    attempt         integer not null,
    begun_us        integer not null,
    ended_us        integer,
    result          text,
    primary key (notification_id, attempt)
) without rowid;

create table event (
    seq      integer primary key,
    kind     text    not null,
    data     text    not null,
    at_us    integer not null,
    -- An alert is told once.
    alert_id text generated always as (case when kind = 'alert' then json_extract(data, '$.alert_id') end) virtual
);
create unique index event_alert on event (alert_id) where alert_id is not null;

-- Windows in which machines are worked on; ended early, `until_us` says when.
create table maintenance (
    machine_id text    not null,
    from_us    integer not null,
    until_us   integer not null,
    reason     text    not null,
    by         text    not null,
    role       text    not null,
    primary key (machine_id, from_us)
) without rowid;
create index maintenance_until on maintenance (until_us);
