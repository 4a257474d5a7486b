create or replace trigger reproq_unique_keys_truncate
after truncate on task_runs
for each statement execute function _reproq_forget_unique_keys();
