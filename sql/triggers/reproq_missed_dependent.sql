create or replace trigger reproq_straggler
after insert on task_runs
for each row
when (new.status = 'WAITING' and new.parent_id is not null)
execute function reproq_task_straggles();
