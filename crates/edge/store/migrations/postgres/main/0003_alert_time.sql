-- Old alerts are found by their time.
create index alert_time on alert (at_us);
