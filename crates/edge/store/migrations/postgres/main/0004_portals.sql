-- Several portals may write: each step raises the edition, and what it changed carries it, so that the others learn of it.
insert into counter (name, value) values ('alarms', 0);
alter table alarm add column edition bigint not null default 0;
create index alarm_edition on alarm (edition);
alter table maintenance add column edition bigint not null default 0;
create index maintenance_edition on maintenance (edition);
