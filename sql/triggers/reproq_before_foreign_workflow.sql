-- Our own functions raise the revision with each UPDATE.
create or replace trigger reproq_before_foreign_workflow
before update on workflow_runs
for each row
when (new.revision = old.revision)
execute function _reproq_coerce_foreign_workflow();
