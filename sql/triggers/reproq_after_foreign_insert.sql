create or replace trigger reproq_after_foreign_insert
after insert on task_runs
for each row
when (new.revision = 0)
execute function _reproq_after_foreign_insert();
