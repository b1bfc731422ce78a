-- Which slots the topic was held against the history for, and in whose log: there the slot and the last records of the
-- topic tell everything. A slot without a row is not trusted.
create table relay (
    slot      text    not null primary key,
    system_id text    not null,
    timeline  integer not null
);
