create or replace trigger reproq_after_delete
after delete on task_runs
for each row
when (old.status in ('READY', 'RUNNING') and (old.lock_key <> '' or old.concurrency_key <> ''))
execute function _reproq_after_delete();
