-- False for a beat: it writes a plan on a row that is not planned.
create or replace trigger reproq_schedule_1_written
before update on periodic_tasks
for each row
when ((old.planned or not new.planned)
      and (old.cron_expr, old.time_zone, old.next_run_at, old.last_run_at, old.enabled)
          is distinct from (new.cron_expr, new.time_zone, new.next_run_at, new.last_run_at, new.enabled))
execute function _reproq_schedule_written();
