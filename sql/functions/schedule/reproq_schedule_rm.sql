create or replace function reproq_schedule_rm(p_name text) returns boolean
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
as $$
-- Removes a schedule; true if there was one. Tasks that it enqueued stay. Locks the schedule's row,
-- writes the audit log.
begin
    delete from periodic_tasks p where p.name = p_name;
    if not found then
        return false;
    end if;
    perform _reproq_write_audit('schedule_rm', jsonb_build_object('name', p_name));
    return true;
end
$$;

revoke execute on function reproq_schedule_rm(text) from public;
comment on function reproq_schedule_rm(text) is 'Removes a schedule; false when there was none. @0.1.0';
