create or replace trigger reproq_schedule_ring_insert
after insert on periodic_tasks
for each row
when (new.enabled)
execute function reproq_ring_on_schedule();
