create or replace trigger reproq_deleted
after delete on task_runs
for each row
when (old.status in ('READY', 'RUNNING') and (old.lock_key <> '' or old.concurrency_key <> ''))
execute function reproq_task_deleted();
