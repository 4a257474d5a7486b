create or replace trigger reproq_after_foreign_update
after update on task_runs
for each row
when (new.revision = old.revision)
execute function _reproq_after_foreign_update();
