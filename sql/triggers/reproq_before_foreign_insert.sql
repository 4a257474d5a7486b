-- Rows that our own functions insert have a revision, and are as they should be.
create or replace trigger reproq_before_foreign_insert
before insert on task_runs
for each row
when (new.revision = 0)
execute function _reproq_coerce_foreign_write();
