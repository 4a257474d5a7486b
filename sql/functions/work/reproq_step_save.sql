create or replace function reproq_step_save(p_result_id bigint, p_lease_token uuid, p_name text, p_value jsonb) returns text
language plpgsql volatile parallel unsafe security definer
set search_path from current
set lock_timeout = '2s'
as $$
-- Stores what a step of a running task returned, in the caller's transaction, which may be the task's own: ok, already
-- (the task has a step of this name; its value stays), lost (the fence does not hold the task).
-- Until the transaction ends nothing else can end the attempt, and its lease is not renewed: keep it short.
-- Raises RQ001 on a name without 1 to 255 bytes or a value of more than 1 MiB. Locks: the task, shared, waiting.
declare
    v_attempt integer;
begin
    if p_name is null or octet_length(p_name) not between 1 and 255 then
        raise exception 'reproq_step_save: p_name must have 1 to 255 bytes'
            using errcode = 'RQ001', hint = 'Give the step a short name that stays the same, such as charge.';
    elsif octet_length(p_value::text) > 1048576 then
        raise exception 'reproq_step_save: the value of step % has % bytes; the limit is 1048576', p_name,
            octet_length(p_value::text)
            using errcode = 'RQ001', hint = 'Store the data elsewhere, and return where it is.';
    end if;
    select t.attempts into v_attempt
    from task_runs t
    where t.result_id = p_result_id and t.lease_token = p_lease_token
    for share;
    if not found then
        return 'lost';
    end if;
    insert into reproq_steps (result_id, name, value, attempt, stored_at)
    values (p_result_id, p_name, p_value, v_attempt, reproq_now())
    on conflict (result_id, name) do nothing;
    return case when found then 'ok' else 'already' end;
end
$$;

revoke execute on function reproq_step_save(bigint, uuid, text, jsonb) from public;
comment on function reproq_step_save(bigint, uuid, text, jsonb) is
    'Stores a durable step of a running task in the caller''s transaction: ok, already or lost; for the attempt that shows its fence. @0.1.0';
