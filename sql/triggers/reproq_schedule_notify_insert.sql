create or replace trigger reproq_schedule_notify_insert
after insert on periodic_tasks
for each row
when (new.enabled)
execute function _reproq_notify_on_schedule();
