create or replace trigger reproq_schedule_1_made
before insert on periodic_tasks
for each row execute function _reproq_schedule_made();
