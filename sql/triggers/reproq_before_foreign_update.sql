-- Our own functions raise the revision with each UPDATE, and write rows that fit.
create or replace trigger reproq_before_foreign_update
before update on task_runs
for each row
when (new.revision = old.revision)
execute function _reproq_coerce_foreign_write();
