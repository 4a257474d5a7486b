create or replace trigger reproq_steps_truncate
after truncate on task_runs
for each statement execute function _reproq_forget_steps();
