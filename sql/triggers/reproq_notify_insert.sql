create or replace trigger reproq_notify_insert
after insert on task_runs
referencing new table as written
for each statement execute function _reproq_notify_on_insert();
