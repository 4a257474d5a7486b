create or replace trigger reproq_after_foreign_workflow
after update on workflow_runs
for each row
when (new.revision = old.revision)
execute function _reproq_after_foreign_workflow();
