-- A beat removes the plan and then writes the next one: neither notifies.
create or replace trigger reproq_schedule_notify_update
after update on periodic_tasks
for each row
when (new.enabled and not new.planned
      and (old.cron_expr, old.time_zone, old.last_run_at, old.enabled, old.task_path, old.payload_json)
          is distinct from (new.cron_expr, new.time_zone, new.last_run_at, new.enabled, new.task_path, new.payload_json))
execute function _reproq_notify_on_schedule();
