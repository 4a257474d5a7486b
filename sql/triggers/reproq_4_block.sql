-- Only tasks with a key pay.
create or replace trigger reproq_4_park
before insert on task_runs
for each row
when (new.status = 'READY' and (new.lock_key <> '' or new.concurrency_key <> ''))
execute function reproq_task_park();
