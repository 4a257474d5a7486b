create or replace trigger reproq_notify_update
after update on task_runs
referencing old table as replaced new table as written
for each statement execute function _reproq_notify_on_update();
