create or replace function reproq_channels(out ready text, out control text, out ended text)
language sql stable parallel safe security definer
set search_path from current
as $$
-- The names to LISTEN on. ready: tasks became claimable (payload: a queue, or empty for any). control: cancel, pause,
-- resume, a schedule was written. ended: a task that a client waits for has ended (payload: its id; reproq_result).
select _reproq_channel('reproq_ready'), _reproq_channel('reproq_control'), _reproq_channel('reproq_ended')
$$;

revoke execute on function reproq_channels() from public;
comment on function reproq_channels() is 'Names of the channels on which this schema notifies workers and clients. @0.1.0';
