create or replace trigger reproq_steps_delete
after delete on task_runs
referencing old table as gone
for each statement execute function _reproq_forget_steps();
